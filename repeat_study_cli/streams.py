"""Replace closed standard streams, and characters that the output's encoding does not support."""

import codecs
import io
import os
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


def open_closed_streams() -> None:
    """Connect every closed standard stream (`>&-` in a shell) to the null device.

    Otherwise Python sets the stream to None, and the next file that is opened takes its descriptor and receives its output.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor, which is this one
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))


def print_in_any_encoding() -> None:
    """Make standard output and standard error replace unsupported characters instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=HANDLER)
