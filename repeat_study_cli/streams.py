"""Replace characters that the output's encoding does not support."""

import codecs
import io
import sys

# ASCII replacements. Each character of a plotted curve maps to a single character, so that curves stay aligned.
REPLACEMENTS = {
    "≥": ">=",
    "≤": "<=",
    "×": "x",
    "·": "*",
    "²": "2",
    "–": "-",
    "—": "-",
    "−": "-",
    "∞": "inf",
    "…": "...",
    "→": "->",
    "’": "'",
} | dict(zip("▁▂▃▄▅▆▇█", ".:-=+*#@", strict=True))
HANDLER = "repeat_study_plain"


def _replace_unsupported(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(REPLACEMENTS.get(character, "?") for character in error.object[error.start : error.end]), error.end


codecs.register_error(HANDLER, _replace_unsupported)


def print_in_any_encoding() -> None:
    """Make standard output and standard error replace unsupported characters instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=HANDLER)
