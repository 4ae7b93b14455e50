r"""Flickr8k's own format: `file.jpg#k<TAB>caption` lines, and a list of photos per split.

Source: Hodosh, Young and Hockenmaier, "Framing image description as a ranking task",
JAIR 47 (2013). The text files are in the data set's folder or in `Flickr8k_text`.
"""

from collections.abc import Iterator
from pathlib import Path

from pipeline.datasets.annotations import Annotations, Summary
from pipeline.datasets.collection import RawCaption, collect_annotations, merge_split_lists
from pipeline.datasets.photo_names import PhotoIndex
from pipeline.datasets.text_files import read_lines
from pipeline.errors import InputError

CAPTION_FILES = ("Flickr8k.token.txt", "Flickr8k_text/Flickr8k.token.txt")
_SPLIT_LISTS = {
    "train": "Flickr_8k.trainImages.txt",
    "dev": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}
_MAX_DIGITS = 9  # of a caption's number


def read_flickr8k(root: Path, photos: PhotoIndex) -> Annotations:
    """Read the token file and the split lists under `root`.

    Raises:
        InputError: every split list is missing.
        OSError: the token file is missing, or a file cannot be read.
    """
    summary = Summary()
    splits = _read_splits(root, photos, summary)
    token_file = _text_file(root, "Flickr8k.token.txt")
    return collect_annotations(_raw_captions(token_file, summary), photos, splits, summary)


def _raw_captions(path: Path, summary: Summary) -> Iterator[RawCaption]:
    for line_number, line in enumerate(read_lines(path, summary), start=1):
        if not line.strip():
            continue
        where = f"{path.name}:{line_number}"
        head, tab, caption = line.lstrip().partition("\t")
        name, _, number = head.rstrip().rpartition("#")
        is_number = number.isascii() and number.isdigit() and len(number) <= _MAX_DIGITS
        if tab and name and is_number:
            yield RawCaption(where, (name,), int(number), caption)
        else:
            yield RawCaption(where, (), None, line)


def _read_splits(root: Path, photos: PhotoIndex, summary: Summary) -> dict[str, str]:
    lists: dict[str, list[str]] = {}
    missing_photos: set[str] = set()
    for split, list_name in _SPLIT_LISTS.items():
        path = _text_file(root, list_name)
        if not path.exists():
            summary.note("split_list_missing", "split lists", list_name)
            continue
        names = list(filter(None, map(str.strip, read_lines(path, summary))))
        matches = photos.match_all((name,) for name in names)
        lists[split] = []
        for name in names:
            match = matches[(name,)]
            if match.image_id is None:
                missing_photos.add(name)
                continue
            lists[split].append(match.image_id)
            if match.repair == "photo_name":
                summary.repair("photo_name", path.name, match.describe_repair(name))
    if not lists:
        expected = ", ".join(_SPLIT_LISTS.values())
        raise InputError(
            f"{root} has no split list: copy {expected} there; or, if you have captions.txt, set "
            "dataset.format: kaggle in params.yaml, which draws the splits"
        )
    summary.listed_photos_not_there = len(missing_photos)
    return merge_split_lists(lists, "split lists", summary)


def _text_file(root: Path, name: str) -> Path:
    in_text_folder = root / "Flickr8k_text" / name
    use_text_folder = in_text_folder.exists() and not (root / name).exists()
    return in_text_folder if use_text_folder else root / name
