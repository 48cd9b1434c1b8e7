"""The repeat-study command. Each verb has a file of its own, imported only when the verb is called."""

import importlib
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from data_prep.errors import InputError
from repeat_study import __version__
from repeat_study_cli.streams import print_in_any_encoding

# Verb -> its line in `repeat-study --help`, which is also the first sentence of the verb's own help.
VERBS = {
    "plan": "Show the runs of a study, how often each repeats its data, and what they cost.",
    "prepare": "Build the token store of a study, or check the existing one.",
    "inspect": "Show what the token store of a study contains.",
    "provenance": "Show which text a run sees at one step.",
    "run": "Train all unfinished runs of a study on this machine.",
    "sweep": "Submit all unfinished runs of a study to SLURM.",
    "status": "Show the state of every run of a study.",
    "resume": "Submit unfinished runs to SLURM again, with the options of the last submission.",
    "cancel": "Take runs of a study out of the SLURM queue.",
    "probe": "Measure copying, induction and every attention head of a trained model.",
    "report": "Write the report of a study: tables, figures and report.html.",
    "predict": "Predict what repeating data costs, for a run that you plan.",
    "fit": "Fit the laws to your own runs.",
    "dev-cluster": "Start or stop a small SLURM cluster on this machine, to try out sweeps.",
}


class LazyGroup(TyperGroup):
    """Replaces the placeholder of a verb by the real command once the verb is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Name, command and remaining arguments."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and load_verb(str(name)), rest


def load_verb(name: str) -> Any:
    """The command of a verb, from the module of the same name."""
    module_name = name.replace("-", "_")
    function = getattr(importlib.import_module(f"{__name__}.{module_name}"), module_name)
    verb = typer.Typer(add_completion=False, rich_markup_mode=None)
    verb.command(name)(function)
    return typer.main.get_command(verb)


def _placeholder() -> None:
    """Stands for a verb until it is loaded."""


app = typer.Typer(
    cls=LazyGroup,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help needs no import of rich
    help="Train and analyze language models on partly repeated data.",
)
for verb_name, line in VERBS.items():
    app.command(verb_name, short_help=line)(_placeholder)


def _print_version(requested: bool) -> None:
    if requested:
        print(f"repeat-study {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command; bad input ends in one line on standard error and exit code 2."""
    print_in_any_encoding()
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], standalone_mode=False))
    except InputError as error:
        _refuse(str(error))
    except typer.Abort:
        sys.exit(130)
    except OSError as error:
        _refuse(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except Exception as error:
        if message := getattr(error, "format_message", None):  # a usage error, from click or typer's copy of it
            _refuse(message())
        raise


def _refuse(message: str) -> None:
    line = " ".join(message.split())
    line = "".join(character if character.isprintable() else "?" for character in line)
    print(f"repeat-study: {line}", file=sys.stderr)
    sys.exit(2)
