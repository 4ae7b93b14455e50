r"""Flickr8k's own form: `file.jpg#k<TAB>caption` lines, and a list of photos per split.

Source: Hodosh, Young and Hockenmaier, "Framing image description as a ranking task",
JAIR 47 (2013). The text files lie in the data set's folder or in `Flickr8k_text`.
"""

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from pipeline.datasets.annotations import Annotations, Summary
from pipeline.datasets.collection import Record, collect
from pipeline.datasets.photo_folders import find, is_safe
from pipeline.datasets.splits import unite
from pipeline.datasets.textfiles import read_lines
from pipeline.errors import InputError

CAPTION_FILES = ("Flickr8k.token.txt", "Flickr8k_text/Flickr8k.token.txt")
_LISTS = {
    "train": "Flickr_8k.trainImages.txt",
    "dev": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}
_ROW = re.compile(r"\s*(.+?)#([0-9]{1,9})\s*\t(.*)", re.DOTALL)


def read(root: Path, photos: Collection[str]) -> Annotations:
    """Read the token file and the split lists under `root`.

    Raises:
        InputError: every split list is missing.
        OSError: the token file is missing, or a file cannot be read.
    """
    summary = Summary()
    splits = _read_splits(root, photos, summary)
    token_file = _text_file(root, "Flickr8k.token.txt")
    return collect(_records(token_file, summary), photos, splits, summary)


def _records(path: Path, summary: Summary) -> Iterator[Record]:
    for number, line in enumerate(read_lines(path, summary), start=1):
        if not line.strip():
            continue
        where = f"{path.name}:{number}"
        row = _ROW.fullmatch(line)
        if row is None:
            yield Record(where, (), None, line)
        else:
            yield Record(where, (row[1],), int(row[2]), row[3])


def _read_splits(root: Path, photos: Collection[str], summary: Summary) -> dict[str, str]:
    lists: dict[str, list[str]] = {}
    not_there: set[str] = set()
    for split, name in _LISTS.items():
        path = _text_file(root, name)
        if not path.exists():
            summary.note("split_list_missing", "split lists", name)
            continue
        lists[split] = []
        for line in filter(None, map(str.strip, read_lines(path, summary))):
            image_id = find([line], photos)[0] if is_safe(line) else None
            if image_id is None:
                not_there.add(line)
            else:
                lists[split].append(image_id)
    if not lists:
        names = ", ".join(_LISTS.values())
        raise InputError(
            f"{root} holds no split list: copy {names} there, or set "
            "dataset.format: kaggle in params.yaml, which draws the splits, "
            "if you have captions.txt"
        )
    summary.listed_photos_not_there = len(not_there)
    return unite(lists, "split lists", summary)


def _text_file(root: Path, name: str) -> Path:
    beside = root / "Flickr8k_text" / name
    return beside if beside.exists() and not (root / name).exists() else root / name
