"""Text files of unknown origin: encodings, byte order marks and line ends."""

import codecs
import json
import re
from pathlib import Path
from typing import Any

from pipeline.datasets.annotations import Summary
from pipeline.errors import InputError

_LINE_END = re.compile(r"\r\n|\r|\n")
_LINE_END_BYTES = re.compile(rb"(\r\n|\r|\n)")


def read_lines(path: Path, summary: Summary) -> list[str]:
    r"""Read a text file as lines without their ends.

    UTF-8 and UTF-16 byte order marks are understood; a line that is no UTF-8 is read as
    Windows-1252; `\r\n`, `\r` and `\n` end a line, and nothing else does (`str.splitlines`
    would also cut at characters that captions contain). Each mend is counted in `summary`.

    Raises:
        OSError: the file cannot be read.
    """
    text = _decode(path.read_bytes(), path, summary)
    crlf = text.count("\r\n")
    lone = text.count("\r") - crlf
    if crlf:
        summary.fix("crlf_line_ends", path.name, "\r\n", crlf)
    if lone:
        summary.fix("lone_cr_line_ends", path.name, "\r", lone)
    return _LINE_END.split(text)


def read_json_object(path: Path, fix: str, summary: Summary) -> dict[str, Any]:
    """Read a JSON object from a file in any encoding that `read_lines` understands.

    Raises:
        InputError: not JSON (named with line and column) or no object; ends in `fix`.
        OSError: the file cannot be read.
    """
    try:
        value = json.loads("\n".join(read_lines(path, summary)))
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{path}, {place}: no JSON ({error.msg}): {fix}") from None
    except (ValueError, RecursionError) as error:  # a number or a nesting beyond all bounds
        raise InputError(f"{path} cannot be read as JSON ({error}): {fix}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}, line 1: holds no JSON object: {fix}")
    return value


def _decode(data: bytes, path: Path, summary: Summary) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = data.decode("utf-16", errors="replace")
        summary.fix("byte_order_mark", path.name, "UTF-16")
        if "\ufffd" in text:
            summary.fix("broken_utf16", path.name, "\ufffd", text.count("\ufffd"))
        return text
    if data.startswith(codecs.BOM_UTF8):
        summary.fix("byte_order_mark", path.name, "UTF-8")
        data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return _decode_by_line(data, path, summary)


def _decode_by_line(data: bytes, path: Path, summary: Summary) -> str:
    """Decode a file that is not all UTF-8, so that one bad line does not garble the others."""
    pieces: list[str] = []
    for number, piece in enumerate(_LINE_END_BYTES.split(data)):
        try:
            pieces.append(piece.decode("utf-8"))
        except UnicodeDecodeError:
            pieces.append(_decode_western(piece))
            # Lines and their ends alternate in the split.
            summary.fix("not_utf8", f"{path.name}:{number // 2 + 1}", pieces[-1])
    return "".join(pieces)


def _decode_western(data: bytes) -> str:
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:  # five bytes mean nothing in Windows-1252
        return data.decode("latin-1")
