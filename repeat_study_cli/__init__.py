"""The repeat-study command: one thin verb per stage of a study."""

import sys
from typing import Annotated

import typer

from data_prep.errors import InputError
from repeat_study import __version__
from repeat_study_cli import data, laws, results, sweeps, training

app = typer.Typer(pretty_exceptions_enable=False, help=__doc__)
for verb in (
    data.plan,
    data.prepare,
    data.inspect,
    data.provenance,
    training.run,
    sweeps.sweep,
    sweeps.status,
    sweeps.resume,
    sweeps.cancel,
    sweeps.dev_cluster,
    results.probe,
    results.report,
    laws.predict,
    laws.fit,
):
    app.command()(verb)


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
    """Entry point: bad input is one line on standard error and exit code 2."""
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], standalone_mode=False))
    except InputError as error:
        _refuse(str(error))
    except typer.Abort:
        sys.exit(130)
    except OSError as error:
        _refuse(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except Exception as error:
        if message := getattr(error, "format_message", None):  # a usage error, whichever click typer was built with
            _refuse(message())
        raise


def _refuse(message: str) -> None:
    print("repeat-study: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)
