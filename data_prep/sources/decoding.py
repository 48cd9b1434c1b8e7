"""Decode text files: UTF-8 with or without a byte-order mark, and Python files in their declared encoding."""

import codecs
import io
import tokenize

from data_prep.sources.document import BadText


def decode_utf8(content: bytes) -> str:
    """Decode UTF-8. Raises BadText if the bytes are not UTF-8."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise BadText("expected UTF-8, found the byte-order mark of UTF-16") from error
        raise BadText(f"not UTF-8 (byte 0x{content[error.start]:02x} at {error.start})") from error


def decode_text(content: bytes) -> str:
    """Decode a UTF-8 text file, dropping any byte-order mark. Raises BadText if it is not UTF-8."""
    return decode_utf8(content.removeprefix(codecs.BOM_UTF8))


def decode_python(content: bytes) -> str:
    """Decode a Python file in its declared encoding (PEP 263) or else as UTF-8. Raises BadText if neither works."""
    if content.startswith(codecs.BOM_UTF8):
        return decode_text(content)
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        if b"coding".decode(encoding) != "coding":
            raise LookupError(encoding)  # e.g. UTF-16, which PEP 263 excludes
        return content.decode(encoding)
    except (SyntaxError, LookupError, ValueError):  # the encoding does not exist or does not match the text
        return decode_text(content)
