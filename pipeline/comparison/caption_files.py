"""Caption files: candidates and references in the formats that other tools write."""

import csv
import io
import json
import re
import reprlib
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any, BinaryIO

from pipeline.errors import InputError, collapsed_message

# The columns or keys that name the photo, and those that hold its captions, by precedence.
ID_KEYS = ("image_id", "image", "filename", "file_name", "photo", "id")
CAPTION_KEYS = ("caption", "captions", "raw", "sentence")
_COLUMNS = (*ID_KEYS, *CAPTION_KEYS, "split", "search")
_FORMATS = (
    'a JSON object of ids to captions, a JSON list of {"image_id", "caption"} (COCO results), '
    "COCO annotations, Karpathy's splits (dataset_coco.json), JSON Lines, CSV or Parquet with "
    "columns image_id and caption"
)

_MAX_LENGTH = 100  # characters of a name in a message
# Files that declare more are made to fill the memory: COCO's captions take 90 MB.
_MAX_BYTES = 2**29
_OBJECT_BYTES = 32  # of a small Python object
_PARQUET_BATCH = 1024  # rows
# How pandas writes an id of 42 in a column of numbers where one is missing.
_WHOLE_FLOAT = re.compile(r"(\d+)\.0")

Captions = dict[str, list[str]]  # image_id to its captions, at least one


@dataclass(frozen=True)
class _Record:
    """An entry of a caption file: a photo's caption or captions.

    Attributes:
        location: where the entry is in the file, for messages.
        values: by column or key.
    """

    location: str
    values: Mapping[str, Any]


def read_captions(
    path: Path, defaults: Mapping[str, str] = MappingProxyType({}), **filters: str | None
) -> Captions:
    """Read image_id to captions, in the file's order; photos without captions are left out.

    Text is UTF-8. It is normalized to Unicode's composed form (NFC), so that accented letters
    are equal however they were typed. An image_id may be a number; 42.0 is 42. A path under the
    key "photo", as `caption image --json` prints it, is reduced to the file name.

    Args:
        path: the file; its suffix decides the format.
        defaults: the value of a filter that is None, used if the file has several values.
        filters: which entries to read, by column; for example split="test".

    Raises:
        InputError: the file is absent, has another format, or has no such entries.
    """
    readers: dict[str, Callable[[Path], Iterator[_Record]]] = {
        ".json": _read_json,
        ".jsonl": _read_json_lines,
        ".ndjson": _read_json_lines,
        ".csv": _read_csv,
        ".parquet": _read_parquet,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"{path} is not a caption file: give a file that ends in {', '.join(readers)}"
        )
    records = _filter_records(path, _read_records(path, reader), defaults, filters)
    captions_by_image: Captions = {}
    for record in records:
        image_id, captions = _parse_record(path, record)
        if captions:
            captions_by_image.setdefault(image_id, []).extend(captions)
    if not captions_by_image:
        raise InputError(f"{path} contains no captions: give a file that does")
    return captions_by_image


def shorten(text: str) -> str:
    """Return a text cut to a length that fits a message: names in a file may be megabytes."""
    return text if len(text) <= _MAX_LENGTH else f"{text[:_MAX_LENGTH]}..."


def _read_records(path: Path, reader: Callable[[Path], Iterator[_Record]]) -> list[_Record]:
    try:
        _check_size(path)
        return list(reader(path))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: give the path of a caption file") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8 text"
        ) from None
    except (ValueError, RecursionError) as error:
        reason = collapsed_message(error)
        raise InputError(f"{path} cannot be read ({reason}): it has to be {_FORMATS}") from None
    except OSError as error:
        # pyarrow's errors about damaged files have no errno.
        reason = error.strerror or shorten(collapsed_message(error))
        raise InputError(f"{path} cannot be read ({reason}): give another file") from None


def _check_size(path: Path) -> None:
    status = path.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise InputError(f"{path} is a pipe or a device: save the captions in a file first")
    if status.st_size > _MAX_BYTES:
        raise InputError(f"{path} is larger than {_MAX_BYTES >> 20} MiB: no caption file is")


def _filter_records(
    path: Path,
    records: list[_Record],
    defaults: Mapping[str, str],
    filters: Mapping[str, str | None],
) -> Iterable[_Record]:
    for column, requested in filters.items():
        present = sorted({str(r.values[column]) for r in records if column in r.values})
        several = len(present) > 1
        value = defaults.get(column) if requested is None and several else requested
        if requested is None and column == "search" and several and value not in present:
            raise InputError(
                f"{path} has captions of several searches: choose one with --search: "
                f"{shorten(' or '.join(present))}"
            )
        if value is not None:
            records = [r for r in records if str(r.values.get(column)) == value]
            if not records:
                choices = shorten(" and ".join(present)) if present else f"no {column}"
                raise InputError(f"{path} has no captions of {column} {value!r}, it has {choices}")
    return records


def _parse_record(path: Path, record: _Record) -> tuple[str, list[str]]:
    """Return an entry's image_id and captions."""
    id_key = next((key for key in ID_KEYS if key in record.values), None)
    caption_key = next((key for key in CAPTION_KEYS if key in record.values), None)
    if id_key is None or caption_key is None:
        missing = " or ".join(ID_KEYS if id_key is None else CAPTION_KEYS)
        raise InputError(f"{path}, {record.location}: no {missing}: it has to be {_FORMATS}")
    captions = record.values[caption_key]
    if isinstance(captions, str):
        captions = [captions]
    if not isinstance(captions, list) or not all(isinstance(c, str) for c in captions):
        raise InputError(
            f"{path}, {record.location}: {caption_key} is not text: "
            "make it a caption or a list of captions"
        )
    return _parse_image_id(path, record, id_key), [_normalize(caption) for caption in captions]


def _parse_image_id(path: Path, record: _Record, key: str) -> str:
    value = record.values[key]
    name = ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str | int) and not isinstance(value, bool):
        name = PurePath(str(value)).name if key == "photo" else str(value)
        name = _WHOLE_FLOAT.sub(r"\1", name) if _WHOLE_FLOAT.fullmatch(name) else name
    if not name:
        raise InputError(
            f"{path}, {record.location}: {key} is {reprlib.repr(value)}: make it a name or a number"
        )
    return _normalize(name)


def _normalize(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _read_text(path: Path) -> str:
    return path.read_bytes().decode("utf-8-sig")


def _read_json(path: Path) -> Iterator[_Record]:
    content = json.loads(_read_text(path), object_pairs_hook=_unique_keys)
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        content = content["annotations"]  # COCO annotations
    elif isinstance(content, dict) and _is_karpathy(content.get("images")):
        content = [_karpathy_values(image) for image in content["images"]]
    if isinstance(content, list):
        yield from (_make_record(f"entry {n}", entry) for n, entry in enumerate(content, 1))
    elif isinstance(content, dict):
        for image_id, captions in content.items():
            values = {"image_id": image_id, "captions": captions}
            yield _Record(f"key {shorten(image_id)}", values)
    else:
        raise ValueError("neither an object nor a list")  # noqa: TRY004  (the file is wrong, not a type of ours)


def _is_karpathy(images: Any) -> bool:
    """Whether a list has Karpathy's form (Karpathy and Fei-Fei 2015): images with sentences."""
    return (
        isinstance(images, list)
        and bool(images)
        and all(isinstance(image, dict) and "sentences" in image for image in images)
    )


def _karpathy_values(image: Mapping[str, Any]) -> dict[str, Any]:
    sentences = image["sentences"]
    if isinstance(sentences, list):
        sentences = [s.get("raw") if isinstance(s, dict) else s for s in sentences]
    values = {key: image[key] for key in ("filename", "split") if key in image}
    return values | {"captions": sentences}


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _refuse_duplicates("key", [key for key, _ in pairs])
    return dict(pairs)


def _refuse_duplicates(kind: str, names: Sequence[str]) -> None:
    """Raise ValueError for a duplicate name: parsers would silently keep the last one."""
    if len(set(names)) < len(names):
        ((duplicate, _),) = Counter(names).most_common(1)
        raise ValueError(f"duplicate {kind} {shorten(duplicate)!r}, keep one")


def _read_json_lines(path: Path) -> Iterator[_Record]:
    for number, line in enumerate(_read_text(path).split("\n"), 1):
        if line.strip():
            location = f"line {number}"
            yield _make_record(location, _parse_json_line(location, line))


def _parse_json_line(location: str, line: str) -> Any:
    try:
        return json.loads(line, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        # Its own line number is always 1.
        raise ValueError(f"{location}, character {error.colno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{location}: {error}") from None


def _make_record(location: str, entry: Any) -> _Record:
    if not isinstance(entry, dict):
        raise ValueError(f"{location} is not an object")  # noqa: TRY004  (the file is wrong, not a type of ours)
    return _Record(location, entry)


def _read_csv(path: Path) -> Iterator[_Record]:
    reader = csv.DictReader(io.StringIO(_read_text(path), newline=""), strict=True)
    last_line = 0
    try:
        _refuse_duplicates("column", [name for name in reader.fieldnames or () if name in _COLUMNS])
        last_line = reader.line_num
        for row in reader:
            last_line = reader.line_num
            if None in row or None in row.values():
                raise ValueError(
                    f"line {last_line} has other columns than the header: put captions with "
                    "commas in quotes"
                )
            yield _Record(f"line {last_line}", row)
    except csv.Error as error:
        raise ValueError(
            f"{error}, in the row after line {last_line}; is a quote never closed?"
        ) from None


def _read_parquet(path: Path) -> Iterator[_Record]:
    import pyarrow as pa  # noqa: PLC0415  (takes 0.1 s that the other formats do not need)

    # Opened here, because pyarrow's errors about folders and unreadable files are unclear.
    with path.open("rb") as opened:
        try:
            yield from _parquet_records(opened)
        except (pa.ArrowException, OverflowError) as error:  # a date that Python lacks overflows
            raise ValueError(collapsed_message(error)) from None


def _parquet_records(opened: BinaryIO) -> Iterator[_Record]:
    """Read the rows in batches; refuse a file before what it declares fills the memory.

    Text is read as a dictionary, as it is stored: a megabyte that stands in a million rows takes
    a few bytes in the file. Sizes in the metadata of its columns are not asked for: pyarrow (24)
    aborts the process if these are damaged.
    """
    import pyarrow as pa  # noqa: PLC0415  (as above)
    import pyarrow.parquet as pq  # noqa: PLC0415  (as above)

    with pq.ParquetFile(opened) as file:
        schema = file.schema_arrow
        leaves = [file.schema.column(i).path for i in range(len(file.schema))]
    names = [name for name in schema.names if name in _COLUMNS]
    _refuse_duplicates("column", names)
    for name in names:
        if pa.types.is_struct(schema.field(name).type) or pa.types.is_map(schema.field(name).type):
            raise ValueError(f"column {name} is {schema.field(name).type}, not text or numbers")
    # Leaves have names such as captions.list.element.
    paths = [leaf for leaf in leaves if leaf.partition(".")[0] in names]
    with pq.ParquetFile(opened, read_dictionary=paths) as file:
        row = n_bytes = 0
        for batch in file.iter_batches(_PARQUET_BATCH, columns=names):
            n_bytes += sum(_decoded_bytes(column) for column in batch.columns)
            if n_bytes > _MAX_BYTES:
                raise ValueError("it declares more text than any caption file has")
            for values in batch.to_pylist():
                row += 1
                yield _Record(f"row {row}", values)


def _decoded_bytes(array: Any) -> int:
    """Return roughly how much memory the values of a pyarrow array take in Python."""
    import pyarrow as pa  # noqa: PLC0415  (as above)
    import pyarrow.compute as pc  # noqa: PLC0415  (as above)

    while pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        array = array.flatten()
    objects = len(array) * _OBJECT_BYTES
    if not pa.types.is_dictionary(array.type) or not pa.types.is_string(array.type.value_type):
        return objects + int(array.nbytes)
    lengths = pc.binary_length(array.dictionary).take(array.indices)
    return objects + (pc.sum(lengths).as_py() or 0)
