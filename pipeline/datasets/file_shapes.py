"""File shapes: what a caption file looks like that is not in the format of its reader.

The fix of a shape is a command that was tried: it writes `captions.txt` in the Kaggle format.
"""

import csv
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.datasets.annotations import Summary
from pipeline.datasets.text_files import decode_json, read_lines
from pipeline.errors import InputError

_SAMPLE_ROWS = 200
_MAX_LINE = 10_000  # characters of a line that are looked at
_SEPARATORS = {"|": "pipes", "\t": "tabs", ";": "semicolons", ",": "commas"}
_SAME_SHAPE = 0.8  # share of the rows that have the header's number of columns
_WORDS_OF_A_CAPTION = 2.5  # on average; numbers and splits have one
_PHOTO = re.compile(r"\.(jpe?g|jfif|png|webp|gif|bmp|tiff?|heic)\b", re.IGNORECASE)
_TOKEN_ROW = re.compile(r"[^#\t]+#[0-9]{1,9}([ \t]+)\S")

_CONVERT_TABLE = (
    "import csv, sys; "
    "rows = list(csv.reader(open(sys.argv[1], encoding='utf-8-sig', newline=''), "
    "delimiter={separator!r}, quoting={quoting})){start}; "
    "out = csv.writer(open(sys.argv[2], 'w', encoding='utf-8', newline='')); "
    "out.writerow(['image', 'caption']); "
    "[out.writerow([row[{photo}].strip(), row[i].strip()]) for row in rows "
    "for i in {captions} if len(row) > max(i, {photo}) and row[i].strip()]"
)
_CONVERT_TOKENS = (
    "import csv, sys; "
    "lines = open(sys.argv[1], encoding='utf-8-sig'); "
    "rows = [line.split('#', 1) for line in lines if '#' in line]; "
    "out = csv.writer(open(sys.argv[2], 'w', encoding='utf-8', newline='')); "
    "out.writerow(['image', 'caption']); "
    "[out.writerow([row[0].strip(), row[1].split(None, 1)[1].strip()]) for row in rows "
    "if len(row[1].split(None, 1)) > 1]"
)

_CONVERT_OTHER = (
    "write its captions to captions.txt: line 1 image,caption, then a photo's name, a comma and a "
    "caption in quotes a line (docs/formats.md); and set dataset.format: kaggle"
)


@dataclass(frozen=True)
class FileShape:
    """What a file looks like.

    Attributes:
        description: a phrase that follows "it looks like".
        fix: what to do to have it read.
    """

    description: str
    fix: str

    def __str__(self) -> str:
        """Return both, as the end of an error message."""
        return f"it looks like {self.description}: {self.fix}"


@dataclass(frozen=True)
class _Table:
    separator: str
    rows: list[list[str]]  # with the header, if there is one

    @property
    def width(self) -> int:
        """The most frequent number of columns; 0 without rows."""
        return max(Counter(map(len, self.rows)).most_common(1), default=(0, 0))[0]

    @property
    def header_length(self) -> int:
        """The number of rows before the first one that names a photo; 1 if none does."""
        names_photo = [any(map(_PHOTO.search, row)) for row in self.rows]
        return names_photo.index(True) if True in names_photo else 1

    @property
    def photo_column(self) -> int:
        """The column with the most photo names; the first if there are none."""
        counts = [sum(bool(_PHOTO.search(cell)) for cell in column) for column in self._columns()]
        return counts.index(max(counts))

    def caption_columns(self) -> list[int]:
        """Return the columns whose cells have several words."""
        lengths = [
            sum(len(cell.split()) for cell in column) / max(len(column), 1)
            for column in self._columns()
        ]
        return [
            position
            for position, length in enumerate(lengths)
            if length >= _WORDS_OF_A_CAPTION and position != self.photo_column
        ]

    def _columns(self) -> list[list[str]]:
        body = self.rows[self.header_length :]
        return [
            [row[position] for row in body if len(row) > position] for position in range(self.width)
        ]


def identify_shape(path: Path) -> FileShape | None:
    """Return the shape of a caption file; None if it has none that is known.

    Raises:
        OSError: it cannot be read.
    """
    try:
        lines = read_lines(path, Summary())
    except InputError:
        return None
    rows = [line[:_MAX_LINE] for line in lines if line.strip()][:_SAMPLE_ROWS]
    if not rows:
        return FileShape("an empty file", "put the captions there")
    if rows[0].lstrip().startswith(("{", "[")):
        value = decode_json("\n".join(lines))
        return identify_json(decode_json(rows[0]) if value is None else value)
    if _share(_TOKEN_ROW.match(row) for row in rows) >= _SAME_SHAPE:
        return _describe_tokens(path)
    table = _find_table(rows)
    return None if table is None else _describe_table(path, table)


def identify_json(value: object) -> FileShape | None:
    """Return the shape of a JSON caption file; None if it has none that is known."""
    if not isinstance(value, dict):
        return FileShape("JSON of another tool", _CONVERT_OTHER)
    images, annotations = value.get("images"), value.get("annotations")
    if isinstance(images, list) and any(_has(image, "sentences") for image in images):
        return FileShape(
            "Karpathy's JSON", "name it dataset_NAME.json and set dataset.format: karpathy"
        )
    if isinstance(images, list) and isinstance(annotations, list):
        if any(_has(annotation, "caption") for annotation in annotations):
            fix = "name it captions_NAME.json and set dataset.format: coco"
            return FileShape("COCO's captions", fix)
        return FileShape(
            "annotations of objects in COCO's form, without captions",
            "get captions_*.json from the same archive",
        )
    return FileShape(f"JSON with other keys ({_keys(value)})", _CONVERT_OTHER)


def _has(entry: object, key: str) -> bool:
    return isinstance(entry, dict) and key in entry


def _keys(value: dict[str, Any]) -> str:
    return ", ".join(repr(key[:20]) for key in list(value)[:3])


def _share(hits: Iterable[object]) -> float:
    answers = [bool(hit) for hit in hits]
    return sum(answers) / max(len(answers), 1)


def _describe_tokens(path: Path) -> FileShape:
    return FileShape(
        "Flickr8k's token file (photo#number, then a tab and the caption)",
        "with Flickr8k's split lists, name it Flickr8k.token.txt and set dataset.format: flickr8k; "
        f"without, {_conversion(path, _CONVERT_TOKENS)}",
    )


def _find_table(rows: Sequence[str]) -> _Table | None:
    """Return the rows split at the separator that most of them have equally often."""
    candidates = []
    for separator in _SEPARATORS:
        table = _Table(separator, _split(rows, separator))
        share = _share(len(row) == table.width for row in table.rows)
        if table.width > 1 and share >= _SAME_SHAPE:
            candidates.append((share, table))
    # The separators are sorted by how rarely captions contain them.
    return max(candidates, key=lambda entry: entry[0])[1] if candidates else None


def _split(rows: Sequence[str], separator: str) -> list[list[str]]:
    try:
        return [
            [cell.strip() for cell in row]
            for row in csv.reader(rows, delimiter=separator, quoting=_quoting(separator))
        ]
    except csv.Error:
        return []


def _quoting(separator: str) -> Literal[0, 3]:
    # Pipes and tabs need no quotes around captions, so that quotes belong to these.
    return csv.QUOTE_NONE if separator in "|\t" else csv.QUOTE_MINIMAL


def _describe_table(path: Path, table: _Table) -> FileShape:
    first = next(index for index, row in enumerate(table.rows) if len(row) == table.width)
    cells = ", ".join(repr(cell[:20]) for cell in table.rows[first][:8])
    header = "" if table.header_length else "without a header, "
    description = (
        f"a table of {table.width} columns separated by {_SEPARATORS[table.separator]} "
        f"({header}line {first + 1}: {cells})"
    )
    captions, photo = table.caption_columns(), table.photo_column
    if not captions:
        return FileShape(description, _CONVERT_OTHER)
    if table.separator == "," and (table.width, photo) == (2, 0):
        return FileShape(description, _describe_kaggle_fix(path, table))
    code = _CONVERT_TABLE.format(
        separator=table.separator,
        quoting=int(_quoting(table.separator)),
        start=f"[{table.header_length}:]" if table.header_length else "",
        photo=photo,
        captions=captions,
    )
    return FileShape(description, _conversion(path, code))


def _describe_kaggle_fix(path: Path, table: _Table) -> str:
    """Return what a file of a photo's name and one caption a row lacks to be in Kaggle's format."""
    steps = []
    if not table.header_length:
        steps.append("add at the top the line image,caption")
    elif [cell.lower() for cell in table.rows[0]] != ["image", "caption"]:
        steps.append("replace line 1 by image,caption")
    if path.name != "captions.txt":
        steps.append("name it captions.txt and set dataset.format: kaggle")
    return ", ".join(steps) or "its form is right"


def _conversion(path: Path, code: str) -> str:
    """Return the fix that writes `captions.txt` by a line of Python."""
    target = path.with_name("captions.txt")
    source, move = path, ""
    if path.name == target.name:
        source = path.with_name("captions.original.txt")
        move = f"mv {shlex.quote(str(path))} {shlex.quote(str(source))} && "
    command = f'{move}python -c "{code}" {shlex.quote(str(source))} {shlex.quote(str(target))}'
    return f"run `{command}` and set dataset.format: kaggle"
