"""The `repeat-study` command line. Each command has its own module, which is imported only when the command is called."""

import importlib
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from data_prep.errors import InputError
from repeat_study import __version__
from repeat_study_cli.streams import open_closed_streams, print_in_any_encoding

# Maps each command to its line in `repeat-study --help`, which is also the first sentence of the command's own help page.
COMMANDS = {
    "plan": "Show a study's runs with their exact repeats and costs.",
    "prepare": "Build a study's token stores, or check the existing ones.",
    "inspect": "Show what a study's token stores contain.",
    "provenance": "Show the text that a run trains on at one step.",
    "run": "Train all unfinished runs in a study on this machine.",
    "sweep": "Submit all unfinished runs in a study to SLURM.",
    "status": "Show the state of every run in a study.",
    "resume": "Submit unfinished runs to SLURM again with the options of the last submission.",
    "cancel": "Remove a study's runs from the SLURM queue.",
    "probe": "Measure copying, induction and every attention head of a trained model.",
    "export": "Write a trained model as a Hugging Face folder.",
    "report": "Write a study's report: tables, figures and report.html.",
    "compare": "Compare studies on one page, with paired differences.",
    "predict": "Predict the cost of repeating data in a planned training run.",
    "fit": "Fit the laws of repetition to your own runs.",
    "dev-cluster": "Start or stop a small SLURM cluster on this machine for testing.",
}


LONGEST_WORD = 300  # characters; longer words in an error message are shortened


class LazyGroup(TyperGroup):
    """A command group that replaces a command's placeholder with the real command when the command is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command's name, the command itself and the remaining arguments."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and load_command(str(name)), rest


def load_command(name: str) -> Any:
    """Import a command from the module with the same name."""
    module_name = name.replace("-", "_")
    function = getattr(importlib.import_module(f"{__name__}.{module_name}"), module_name)
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name)(function)
    return typer.main.get_command(single)


def _placeholder() -> None:
    """Stands in for every command until its module is loaded."""


app = typer.Typer(
    cls=LazyGroup,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help pages do not import rich
    help="Train and analyze language models on partly repeated data.",
)
for command_name, line in COMMANDS.items():
    app.command(command_name, short_help=line)(_placeholder)


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
    """Run the command line. For bad input, print one line to standard error and exit with code 2."""
    open_closed_streams()
    print_in_any_encoding()
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], standalone_mode=False))
    except InputError as error:
        _exit_with_message(str(error))
    except typer.Abort:
        sys.exit(130)
    except FileExistsError as error:
        _exit_with_message(f"{error.filename}: exists but is not a folder; move or delete it")
    except OSError as error:
        _exit_with_message(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except Exception as error:
        if message := getattr(error, "format_message", None):  # a usage error from click, or from typer's copy of click
            _exit_with_message(message().replace(": Value error, ", ": ") + _value_found(error, sys.argv[1:]))
        raise


def _value_found(error: Any, arguments: list[str]) -> str:
    """The text `, found 'x'` for the value of the option that a usage error is about, if its message lacks the value."""
    found = ""
    for option in getattr(getattr(error, "param", None), "opts", ()):
        for argument, following in zip(arguments, [*arguments[1:], None], strict=True):
            name, equals, value = argument.partition("=")
            if name == option and (equals or following is not None):
                found = value if equals else str(following)
    return f", found {found!r}" if found and repr(found) not in error.format_message() else ""


def _exit_with_message(message: str) -> None:
    line = " ".join(message.split())
    line = "".join(character if character.isprintable() else "?" for character in line)
    line = " ".join(word if len(word) <= LONGEST_WORD else f"{word[:60]}...{word[-60:]}" for word in line.split(" "))
    print(f"repeat-study: {line}", file=sys.stderr)
    sys.exit(2)
