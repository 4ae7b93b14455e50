"""The Kaggle format of Flickr8k and Flickr30k: one CSV file with the header `image,caption`.

It has no splits: they are drawn from the seed, by photo. It has no caption numbers either, so
equal rows come from annotators who wrote the same caption, and both are kept.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.datasets.annotations import Annotations, Summary
from pipeline.datasets.collection import RawCaption, collect_annotations
from pipeline.datasets.file_shapes import identify_shape
from pipeline.datasets.photo_names import PhotoIndex
from pipeline.datasets.splits import draw_split
from pipeline.datasets.text_files import read_lines
from pipeline.errors import InputError

CAPTION_FILES = ("captions.txt",)
_HEADER = ["image", "caption"]
# A photo's name and the comma after it; the name may be quoted, as any column may.
_PHOTO_SUFFIX = r"\.(?:jpe?g|png|webp)(?:\.[0-9]+)?\s*"
_ROW_START = re.compile(rf'(?:"[^"]+{_PHOTO_SUFFIX}"|[^,"]+{_PHOTO_SUFFIX}),', re.IGNORECASE)
_FIRST_COLUMN = re.compile(r'(?:"(?:[^"]|"")*"|[^,]*),')
_COLUMN_COUNT = 2


def read_kaggle(
    root: Path, photos: PhotoIndex, *, split_seed: int, dev_share: float, test_share: float
) -> Annotations:
    """Read `captions.txt` under `root` and draw the splits.

    Raises:
        InputError: the file has another header.
        OSError: it is missing or cannot be read.
    """
    summary = Summary()
    splits = {
        image_id: draw_split(image_id, split_seed, dev_share=dev_share, test_share=test_share)
        for image_id in photos
    }
    captions = _raw_captions(root / CAPTION_FILES[0], summary)
    return collect_annotations(captions, photos, splits, summary)


def _raw_captions(path: Path, summary: Summary) -> Iterator[RawCaption]:
    rows = _csv_rows(read_lines(path, summary))
    _, header = next(rows, (1, ""))
    if [column.strip().lower() for column in _columns(header)] != _HEADER:
        shape = identify_shape(path) or "set dataset.format in params.yaml to the file's format"
        raise InputError(
            f"{path}, line 1: {header[:60]!r} is not the header image,caption: {shape}"
        )
    for number, row in rows:
        where = f"{path.name}:{number}"
        columns = _columns(row)
        if len(columns) < _COLUMN_COUNT:
            yield RawCaption(where, (), None, row)
            continue
        if len(columns) > _COLUMN_COUNT:
            summary.repair("unquoted_comma", where, row)
        name, caption = columns[0], ",".join(columns[1:])
        if _has_open_quote(row):
            summary.repair("open_quote", where, row)
        yield RawCaption(where, (name.strip(),), None, caption)


def _csv_rows(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Yield (line number, row): a quoted caption may span several lines.

    A quote that is never closed would swallow all captions after it. If a line that starts
    like a row comes before the closing quote, the open quote therefore ends with its line.
    """
    quote_ends = _quote_ends(lines)
    start = 0
    while start < len(lines):
        end = start + 1
        if _has_open_quote(lines[start]):
            end = quote_ends[end] or end
        row = "\n".join(lines[start:end])
        if row.strip():
            yield start + 1, row
        start = end


def _quote_ends(lines: list[str]) -> list[int | None]:
    """Return for each index, and the end, the index after the line that closes an open quote.

    The quote was opened before the line at that index. None if a line that starts like a row,
    or the end, comes first.
    """
    ends: list[int | None] = [None] * (len(lines) + 1)
    for index in range(len(lines) - 1, -1, -1):
        if _ROW_START.match(lines[index]):
            ends[index] = None
        else:
            is_closing = lines[index].count('"') % 2 == 1
            ends[index] = index + 1 if is_closing else ends[index + 1]
    return ends


def _has_open_quote(row: str) -> bool:
    """Return whether the caption starts with a quote that this row does not close."""
    name = _FIRST_COLUMN.match(row)
    caption = row[name.end() :] if name else ""
    return caption.startswith('"') and caption.count('"') % 2 == 1


def _columns(row: str) -> list[str]:
    """Split a row at its commas; return no columns if it cannot be split."""
    try:
        return next(csv.reader([row]), [])
    except csv.Error:
        return []
