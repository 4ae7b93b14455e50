"""Text files of unknown origin: encodings, byte order marks and line ends."""

import codecs
import json
import re
import shlex
from pathlib import Path
from typing import Any

from pipeline.datasets.annotations import Summary
from pipeline.datasets.encodings import decode_utf8, guess_encodings, is_not_utf8, without_mark
from pipeline.errors import InputError

_LINE_END = re.compile(r"\r\n|\r|\n")
# UTF-32's first, as UTF-16's is a part of it.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le", "UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32-be", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16"),
    (codecs.BOM_UTF8, "", "UTF-8"),
)
_LINE_END_BYTES = re.compile(rb"(\r\n|\r|\n)")


def read_lines(path: Path, summary: Summary) -> list[str]:
    r"""Read a text file as lines without their line ends.

    UTF-8, and UTF-16 and UTF-32 with or without a byte order mark, are recognised. In a file
    that is else UTF-8, bytes that are not are read as Windows-1252. Only `\r\n`, `\r` and `\n`
    end a line (`str.splitlines` would also split at characters that captions contain). Each
    repair is counted in `summary`.

    Raises:
        InputError: it is not a file, or in another encoding.
        OSError: the file cannot be read.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(f"{path} is a pipe or a device: put a file in its place")
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


def decode_json(text: str) -> object:
    """Return the value of a JSON text; None if it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _decode(data: bytes, path: Path, summary: Summary) -> str:
    for mark, encoding, name in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            summary.repair("byte_order_mark", path.name, name)
            data = data.removeprefix(mark)
            return (
                _decode_wide(data, encoding, path, summary)
                if encoding
                else _decode_utf8(data, path, summary)
            )
    if wide_encoding := without_mark(data):
        summary.repair("no_byte_order_mark", path.name, wide_encoding.upper())
        return _decode_wide(data, wide_encoding, path, summary)
    return _decode_utf8(data, path, summary)


def _decode_wide(data: bytes, encoding: str, path: Path, summary: Summary) -> str:
    text = data.decode(encoding, errors="replace")
    if "\ufffd" in text:
        summary.repair("broken_utf16", path.name, "\ufffd", text.count("\ufffd"))
    return text


def _decode_utf8(data: bytes, path: Path, summary: Summary) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        if is_not_utf8(data):
            raise InputError(_encoding_problem(data, path)) from None
    parts: list[str] = []
    for position, part in enumerate(_LINE_END_BYTES.split(data)):
        try:
            parts.append(part.decode("utf-8"))
        except UnicodeDecodeError:
            parts.append(decode_utf8(part))
            # The split alternates between lines and their ends.
            summary.repair("not_utf8", f"{path.name}:{position // 2 + 1}", parts[-1])
    return "".join(parts)


def _encoding_problem(data: bytes, path: Path) -> str:
    guesses = guess_encodings(data)
    candidates = ", ".join(f"{guess.name} ({guess.example!r})" for guess in guesses)
    name, copy = shlex.quote(str(path)), shlex.quote(f"{path}.utf8")
    return (
        f"{path} is not UTF-8. It could be one of these: {candidates}. Find the one that reads "
        f"well and convert the file, for example `iconv -f {guesses[0].name} -t UTF-8 {name} > "
        f"{copy} && mv {copy} {name}`"
    )
