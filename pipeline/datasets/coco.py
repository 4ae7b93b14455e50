"""COCO's form: `captions_*.json` files with `images` and `annotations`.

Source: Chen et al., "Microsoft COCO captions: data collection and evaluation server",
arXiv:1504.00325. The files lie in the data set's folder or in `annotations`.

The photos of captions_train2014.json lie in `train2014` or `images/train2014`, and then
have the image_id train2014/FILE_NAME; or in a photo folder, and then have FILE_NAME.

Files named train, val and test give those splits (val is dev). Where there is no test file,
val photos are divided evenly between dev and test. Where the files name a single split or
none, all three are drawn from the seed; so are those of a file that names no split.
"""

import re
import reprlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.datasets.annotations import Annotations, Summary
from pipeline.datasets.collection import Record, collect, identity
from pipeline.datasets.photo_folders import find, is_safe, list_photos, photo_folder
from pipeline.datasets.splits import draw, unite
from pipeline.datasets.textfiles import read_json_object
from pipeline.errors import InputError

CAPTION_FILES = ("captions_*.json", "annotations/captions_*.json")
_SPLITS = {"train": "train", "val": "dev", "dev": "dev", "test": "test"}
_SPLIT_NAME = re.compile("|".join(_SPLITS))
_FIX = "get the file again, or set dataset.format in params.yaml to its form"


@dataclass(frozen=True)
class _CaptionFile:
    path: Path
    names: dict[int | str, tuple[str, ...]]  # COCO's own image id -> names of the photo
    annotations: list[Any]

    @property
    def split(self) -> str | None:
        named = _SPLIT_NAME.match(_folder_name(self.path))
        return _SPLITS[named[0]] if named else None


def photos(root: Path) -> dict[str, Path]:
    """Return image_id -> path of the photos in the folders that the caption files go with."""
    found: dict[str, Path] = {}
    folder = photo_folder(root)
    for name in map(_folder_name, _paths(root)):
        places = [root / name] if folder is None else [root / name, folder / name]
        place = next((place for place in places if place.is_dir()), None)
        if place is not None:
            listed = list_photos(place)
            found |= {f"{name}/{image_id}": path for image_id, path in listed.items()}
        elif folder is not None:
            found = list_photos(folder) | found
    return dict(sorted(found.items()))


def read(
    root: Path, photos: Collection[str], *, split_seed: int, dev_share: float, test_share: float
) -> Annotations:
    """Read every `captions_*.json` under `root`, drawing the splits that they do not give.

    Raises:
        InputError: one is no JSON, or lacks the list `images` or `annotations`.
        OSError: one cannot be read.
    """
    summary = Summary()
    files = [_load(path, summary) for path in _paths(root)]
    named = {file.split for file in files} - {None}
    lists: dict[str, list[str]] = {}
    for file in files:
        for image_id in _image_ids(file, photos):
            split = file.split
            if split is None or len(named) == 1:
                split = draw(image_id, split_seed, dev_share=dev_share, test_share=test_share)
            elif split == "dev" and "test" not in named:
                split = draw(image_id, split_seed, dev_share=0.5, test_share=0.5)
            lists.setdefault(split, []).append(image_id)
    splits = unite(lists, "captions files", summary)
    records = (record for file in files for record in _records(file))
    return collect(records, photos, splits, summary)


def _paths(root: Path) -> list[Path]:
    return sorted(path for pattern in CAPTION_FILES for path in root.glob(pattern))


def _folder_name(path: Path) -> str:
    return path.stem.removeprefix("captions_")


def _load(path: Path, summary: Summary) -> _CaptionFile:
    content = read_json_object(path, _FIX, summary)
    for key in ("images", "annotations"):
        if not isinstance(content.get(key), list):
            raise InputError(f"{path}: key {key} holds no list: {_FIX}")
    names: dict[int | str, tuple[str, ...]] = {}
    for position, image in enumerate(content["images"]):
        number = identity(image, "id")
        file_name = image.get("file_name") if isinstance(image, dict) else None
        if number is None or number in names or not isinstance(file_name, str):
            where = f"{path.name}: images[{position}]"
            summary.note("malformed_image_entry", where, reprlib.repr(image))
        else:
            names[number] = (f"{_folder_name(path)}/{file_name}", file_name)
    return _CaptionFile(path, names, content["annotations"])


def _image_ids(file: _CaptionFile, photos: Collection[str]) -> Iterator[str]:
    for names in file.names.values():
        if all(is_safe(name) for name in names):
            image_id, _ = find(names, photos)
            if image_id is not None:
                yield image_id


def _records(file: _CaptionFile) -> Iterator[Record]:
    for position, annotation in enumerate(file.annotations):
        where = f"{file.path.name}: annotations[{position}]"
        number = identity(annotation, "image_id")
        if number is None or number not in file.names:
            yield Record(where, (), None, annotation)
        else:
            caption = annotation.get("caption")
            yield Record(where, file.names[number], identity(annotation, "id"), caption)
