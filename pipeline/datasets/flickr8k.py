r"""Flickr8k's own format: `file.jpg#k<TAB>caption` lines, and a list of photos per split.

Source: Hodosh, Young and Hockenmaier, "Framing image description as a ranking task",
JAIR 47 (2013). The text files are in the data set's folder or in `Flickr8k_text`.
"""

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from pipeline.datasets.annotations import Annotations, Summary
from pipeline.datasets.collection import RawCaption, collect_annotations, merge_split_lists
from pipeline.datasets.photo_folders import is_safe_name, match_photo
from pipeline.datasets.text_files import read_lines
from pipeline.errors import InputError

CAPTION_FILES = ("Flickr8k.token.txt", "Flickr8k_text/Flickr8k.token.txt")
_SPLIT_LISTS = {
    "train": "Flickr_8k.trainImages.txt",
    "dev": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}
_ROW = re.compile(r"\s*(.+?)#([0-9]{1,9})\s*\t(.*)", re.DOTALL)


def read_flickr8k(root: Path, image_ids: Collection[str]) -> Annotations:
    """Read the token file and the split lists under `root`.

    Raises:
        InputError: every split list is missing.
        OSError: the token file is missing, or a file cannot be read.
    """
    summary = Summary()
    splits = _read_splits(root, image_ids, summary)
    token_file = _text_file(root, "Flickr8k.token.txt")
    return collect_annotations(_raw_captions(token_file, summary), image_ids, splits, summary)


def _raw_captions(path: Path, summary: Summary) -> Iterator[RawCaption]:
    for number, line in enumerate(read_lines(path, summary), start=1):
        if not line.strip():
            continue
        where = f"{path.name}:{number}"
        row = _ROW.fullmatch(line)
        if row is None:
            yield RawCaption(where, (), None, line)
        else:
            yield RawCaption(where, (row[1],), int(row[2]), row[3])


def _read_splits(root: Path, image_ids: Collection[str], summary: Summary) -> dict[str, str]:
    lists: dict[str, list[str]] = {}
    missing_photos: set[str] = set()
    for split, name in _SPLIT_LISTS.items():
        path = _text_file(root, name)
        if not path.exists():
            summary.note("split_list_missing", "split lists", name)
            continue
        lists[split] = []
        for line in filter(None, map(str.strip, read_lines(path, summary))):
            image_id = match_photo([line], image_ids)[0] if is_safe_name(line) else None
            if image_id is None:
                missing_photos.add(line)
            else:
                lists[split].append(image_id)
    if not lists:
        names = ", ".join(_SPLIT_LISTS.values())
        raise InputError(
            f"{root} has no split list: copy {names} there; or, if you have captions.txt, set "
            "dataset.format: kaggle in params.yaml, which draws the splits"
        )
    summary.listed_photos_not_there = len(missing_photos)
    return merge_split_lists(lists, "split lists", summary)


def _text_file(root: Path, name: str) -> Path:
    in_text_folder = root / "Flickr8k_text" / name
    use_text_folder = in_text_folder.exists() and not (root / name).exists()
    return in_text_folder if use_text_folder else root / name
