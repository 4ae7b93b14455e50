"""The Kaggle form of Flickr8k and Flickr30k: one CSV file with the header `image,caption`.

It has no splits: they are drawn, by photo, from the seed. It has no caption numbers either,
so equal rows are annotators who agree, and stay.
"""

import csv
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from pipeline.datasets.annotations import Annotations, Summary
from pipeline.datasets.collection import Record, collect
from pipeline.datasets.splits import draw
from pipeline.datasets.textfiles import read_lines
from pipeline.errors import InputError

CAPTION_FILES = ("captions.txt",)
_HEADER = ["image", "caption"]
# A photo's name and the comma after it; a name may stand in quotes, as all columns may.
_PHOTO = r"\.(?:jpe?g|png|webp)(?:\.[0-9]+)?\s*"
_ROW_START = re.compile(rf'(?:"[^"]+{_PHOTO}"|[^,"]+{_PHOTO}),', re.IGNORECASE)
_FIRST_COLUMN = re.compile(r'(?:"(?:[^"]|"")*"|[^,]*),')
_COLUMNS = 2


def read(
    root: Path, photos: Collection[str], *, split_seed: int, dev_share: float, test_share: float
) -> Annotations:
    """Read `captions.txt` under `root` and draw the splits.

    Raises:
        InputError: the file has another header.
        OSError: it is missing or cannot be read.
    """
    summary = Summary()
    splits = {
        image_id: draw(image_id, split_seed, dev_share=dev_share, test_share=test_share)
        for image_id in photos
    }
    return collect(_records(root / CAPTION_FILES[0], summary), photos, splits, summary)


def _records(path: Path, summary: Summary) -> Iterator[Record]:
    rows = _rows(read_lines(path, summary))
    _, first = next(rows, (1, ""))
    if [column.strip().lower() for column in _columns(first)] != _HEADER:
        raise InputError(
            f"{path}, line 1: {first[:60]!r} is not the header image,caption: "
            "put that line first, or set dataset.format in params.yaml to the file's form"
        )
    for number, row in rows:
        where = f"{path.name}:{number}"
        columns = _columns(row)
        if len(columns) < _COLUMNS:
            yield Record(where, (), None, row)
            continue
        if len(columns) > _COLUMNS:
            summary.fix("unquoted_comma", where, row)
        name, caption = columns[0], ",".join(columns[1:])
        if _has_open_quote(row):
            summary.fix("open_quote", where, row)
        yield Record(where, (name.strip(),), None, caption)


def _rows(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Yield (line number, row): a quoted caption may go on over several lines.

    A quote that is never closed would take in every caption after it: it ends with its
    line if a line that starts like a row comes before the closing one.
    """
    start = 0
    while start < len(lines):
        end = start + 1
        if _has_open_quote(lines[start]):
            end = _closing_line(lines, end) or end
        row = "\n".join(lines[start:end])
        if row.strip():
            yield start + 1, row
        start = end


def _closing_line(lines: list[str], start: int) -> int | None:
    """Return the index after the line that closes a quote opened before `start`."""
    for index in range(start, len(lines)):
        if _ROW_START.match(lines[index]):
            return None
        if lines[index].count('"') % 2 == 1:
            return index + 1
    return None


def _has_open_quote(row: str) -> bool:
    """Tell whether the caption starts with a quote that is not closed in this row."""
    name = _FIRST_COLUMN.match(row)
    caption = row[name.end() :] if name else ""
    return caption.startswith('"') and caption.count('"') % 2 == 1


def _columns(row: str) -> list[str]:
    """Split a row at its commas; no columns if that cannot be done."""
    try:
        return next(csv.reader([row]), [])
    except csv.Error:
        return []
