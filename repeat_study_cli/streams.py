"""Output on terminals and in pipes whose encoding lacks some of the characters that verbs print."""

import codecs
import io
import sys

# Plain spellings, one character where a table or a curve has to stay aligned.
PLAIN = {
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


def _plainly(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(character, "?") for character in error.object[error.start : error.end]), error.end


codecs.register_error(HANDLER, _plainly)


def print_in_any_encoding() -> None:
    """Let standard output and standard error print characters plainly that their encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=HANDLER)
