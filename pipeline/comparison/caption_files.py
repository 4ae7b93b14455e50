"""Caption files: candidates and references as other tools write them."""

import csv
import io
import json
import reprlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any

from pipeline.errors import InputError, collapsed

# Columns, and keys, that name the photo and hold what is said of it.
IDS = ("image_id", "image", "filename", "file_name", "photo", "id")
TEXTS = ("caption", "captions", "raw", "sentence")
_COLUMNS = (*IDS, *TEXTS, "split", "search")
_FORMS = (
    'a JSON object of ids to captions, a JSON list of {"image_id", "caption"} (COCO results), '
    "COCO annotations, JSON Lines, CSV or Parquet with columns image_id and caption"
)

_SHOWN = 100  # characters of a stranger's name

Captions = dict[str, list[str]]  # at least one a photo


@dataclass(frozen=True)
class _Row:
    """A photo's caption or captions, where they stand, and what they may be chosen by."""

    where: str
    values: Mapping[str, Any]


def read_captions(
    path: Path, usual: Mapping[str, str] = MappingProxyType({}), **choose: str | None
) -> Captions:
    """Read image_id to captions, in the file's order; a photo without any is not there.

    Text is UTF-8, and is brought to Unicode's composed form (NFC), so that an accent is
    the same whichever way it is typed. An image_id may be a number; a photo's path, as
    `caption image --json` has it, counts by its name.

    Args:
        path: the file; its suffix tells the form.
        usual: rows to take where the file has such a column and none are chosen.
        choose: rows to take: split="test", say.

    Raises:
        InputError: the file is absent, of another form, or has no such rows.
    """
    readers: dict[str, Callable[[Path], Iterator[_Row]]] = {
        ".json": _json,
        ".jsonl": _json_lines,
        ".ndjson": _json_lines,
        ".csv": _csv,
        ".parquet": _parquet,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path} is no caption file: give one that ends in {', '.join(readers)}")
    rows = _chosen(path, _read(path, reader), usual, choose)
    found: Captions = {}
    for row in rows:
        image_id, captions = _entry(path, row)
        if captions:
            found.setdefault(image_id, []).extend(captions)
    if not found:
        raise InputError(f"{path} holds no captions: give a file that does")
    return found


def brief(text: str) -> str:
    """Return a text for a message: a stranger's name may be a megabyte."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _read(path: Path, reader: Callable[[Path], Iterator[_Row]]) -> list[_Row]:
    try:
        return list(reader(path))
    except FileNotFoundError:
        raise InputError(f"{path} is not there: give the path of a caption file") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is no UTF-8 (byte {error.start}): save it as UTF-8 text"
        ) from None
    except (ValueError, RecursionError) as error:
        reason = collapsed(error)
        raise InputError(f"{path} cannot be read ({reason}): it has to be {_FORMS}") from None
    except OSError as error:
        # pyarrow's have no errno where the file is damaged.
        reason = error.strerror or brief(collapsed(error))
        raise InputError(f"{path} cannot be read ({reason}): give another file") from None


def _chosen(
    path: Path, rows: list[_Row], usual: Mapping[str, str], choose: Mapping[str, str | None]
) -> Iterable[_Row]:
    for column, asked in choose.items():
        there = sorted({str(row.values[column]) for row in rows if column in row.values})
        several = len(there) > 1
        wanted = usual.get(column) if asked is None and several else asked
        if asked is None and column == "search" and several and wanted not in there:
            raise InputError(
                f"{path} has the captions of several searches: choose one by --search, "
                f"{brief(' or '.join(there))}"
            )
        if wanted is not None:
            rows = [row for row in rows if str(row.values.get(column)) == wanted]
            if not rows:
                has = brief(" and ".join(there)) if there else f"no {column}"
                raise InputError(f"{path} has no captions of {column} {wanted!r}, it has {has}")
    return rows


def _entry(path: Path, row: _Row) -> tuple[str, list[str]]:
    """Return a row's image_id and captions."""
    key = next((key for key in IDS if key in row.values), None)
    text = next((key for key in TEXTS if key in row.values), None)
    if key is None or text is None:
        lacks = " or ".join(IDS if key is None else TEXTS)
        raise InputError(f"{path}, {row.where}: no {lacks}: it has to be {_FORMS}")
    captions = row.values[text]
    if isinstance(captions, str):
        captions = [captions]
    if not isinstance(captions, list) or not all(isinstance(c, str) for c in captions):
        raise InputError(
            f"{path}, {row.where}: {text} is no text: make it a caption or a list of captions"
        )
    return _image_id(path, row, key), [_composed(caption) for caption in captions]


def _image_id(path: Path, row: _Row, key: str) -> str:
    value = row.values[key]
    name = ""
    if isinstance(value, str | int) and not isinstance(value, bool):
        name = PurePath(str(value)).name if key == "photo" else str(value)
    if not name:
        raise InputError(
            f"{path}, {row.where}: {key} is {reprlib.repr(value)}: make it a name or a number"
        )
    return _composed(name)


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8-sig")


def _json(path: Path) -> Iterator[_Row]:
    values = json.loads(_text(path), object_pairs_hook=_no_twice)
    if isinstance(values, dict) and isinstance(values.get("annotations"), list):
        values = values["annotations"]  # COCO's
    if isinstance(values, list):
        yield from (_object(f"entry {number}", row) for number, row in enumerate(values, 1))
    elif isinstance(values, dict):
        for image_id, captions in values.items():
            yield _Row(f"key {brief(image_id)}", {"image_id": image_id, "captions": captions})
    else:
        raise ValueError("neither an object nor a list")  # noqa: TRY004  (of the file's, not of ours)


def _no_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _once("key", [key for key, _ in pairs])
    return dict(pairs)


def _once(what: str, names: Sequence[str]) -> None:
    """Refuse a name that is there twice: readers would keep the last and say nothing."""
    if len(set(names)) < len(names):
        ((twice, _),) = Counter(names).most_common(1)
        raise ValueError(f"the {what} {brief(twice)!r} is there twice, leave one")


def _json_lines(path: Path) -> Iterator[_Row]:
    for number, line in enumerate(_text(path).split("\n"), 1):
        if line.strip():
            where = f"line {number}"
            yield _object(where, _json_line(where, line))


def _json_line(where: str, line: str) -> Any:
    try:
        return json.loads(line, object_pairs_hook=_no_twice)
    except json.JSONDecodeError as error:
        # Its own line number is always 1.
        raise ValueError(f"{where}, character {error.colno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: {error}") from None


def _object(where: str, row: Any) -> _Row:
    if not isinstance(row, dict):
        raise ValueError(f"{where} is no object")  # noqa: TRY004  (of the file's, not of ours)
    return _Row(where, row)


def _csv(path: Path) -> Iterator[_Row]:
    rows = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    last = 0
    try:
        _once("column", [name for name in rows.fieldnames or () if name in _COLUMNS])
        last = rows.line_num
        for row in rows:
            last = rows.line_num
            if None in row or None in row.values():
                raise ValueError(
                    f"line {last} has other columns than the header: put captions with "
                    "commas in quotes"
                )
            yield _Row(f"line {last}", row)
    except csv.Error as error:
        raise ValueError(f"{error}, in the row after line {last}") from None


def _parquet(path: Path) -> Iterator[_Row]:
    import pyarrow.parquet as pq  # noqa: PLC0415  (a tenth of a second that others need not wait)

    # Opened here: of a folder, or a file that may not be read, pyarrow does not say what it is.
    with path.open("rb") as opened, pq.ParquetFile(opened) as file:
        names = [name for name in file.schema_arrow.names if name in _COLUMNS]
        _once("column", names)
        rows = file.read(columns=names).to_pylist()
    yield from (_Row(f"row {number}", row) for number, row in enumerate(rows, 1))
