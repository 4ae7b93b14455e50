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
    r"""Read a text file as lines without their line ends.

    UTF-8 and UTF-16 byte order marks are recognised; a line that is not UTF-8 is read as
    Windows-1252. Only `\r\n`, `\r` and `\n` end a line (`str.splitlines` would also split
    at characters that captions contain). Each repair is counted in `summary`.

    Raises:
        OSError: the file cannot be read.
    """
    text = _decode(path.read_bytes(), path, summary)
    crlf = text.count("\r\n")
    lone_cr = text.count("\r") - crlf
    if crlf:
        summary.repair("crlf_line_ends", path.name, "\r\n", crlf)
    if lone_cr:
        summary.repair("lone_cr_line_ends", path.name, "\r", lone_cr)
    return _LINE_END.split(text)


def read_json_object(path: Path, fix: str, summary: Summary) -> dict[str, Any]:
    """Read a JSON object from a file in any encoding that `read_lines` recognises.

    Raises:
        InputError: it is not JSON (the message has line and column) or not an object; the
            message ends in `fix`.
        OSError: the file cannot be read.
    """
    try:
        value = json.loads("\n".join(read_lines(path, summary)))
    except json.JSONDecodeError as error:
        position = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{path}, {position}: not JSON ({error.msg}): {fix}") from None
    except (ValueError, RecursionError) as error:  # a number too long or nesting too deep
        raise InputError(f"{path} cannot be read as JSON ({error}): {fix}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}, line 1: not a JSON object: {fix}")
    return value


def _decode(data: bytes, path: Path, summary: Summary) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = data.decode("utf-16", errors="replace")
        summary.repair("byte_order_mark", path.name, "UTF-16")
        if "\ufffd" in text:
            summary.repair("broken_utf16", path.name, "\ufffd", text.count("\ufffd"))
        return text
    if data.startswith(codecs.BOM_UTF8):
        summary.repair("byte_order_mark", path.name, "UTF-8")
        data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return _decode_by_line(data, path, summary)


def _decode_by_line(data: bytes, path: Path, summary: Summary) -> str:
    """Decode a file that is not all UTF-8, so that one bad line does not garble the others."""
    parts: list[str] = []
    for position, part in enumerate(_LINE_END_BYTES.split(data)):
        try:
            parts.append(part.decode("utf-8"))
        except UnicodeDecodeError:
            parts.append(_decode_western(part))
            # The split alternates between lines and their ends.
            summary.repair("not_utf8", f"{path.name}:{position // 2 + 1}", parts[-1])
    return "".join(parts)


def _decode_western(data: bytes) -> str:
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:  # five bytes are undefined in Windows-1252
        return data.decode("latin-1")
