"""Karpathy's form: one `dataset_*.json` with photos, splits and sentences.

Source: Karpathy and Fei-Fei, "Deep visual-semantic alignments for generating image
descriptions", CVPR 2015; released for Flickr8k, Flickr30k and COCO. Its `restval` photos
train, as is usual.

Photos lie in `root/FILEPATH` (COCO's train2014 and val2014), or in a photo folder, with or
without FILEPATH in between. The image_id is FILEPATH/FILENAME where the photo lies in such
a folder, and the file name where it does not.
"""

import reprlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from pipeline.datasets.annotations import Annotations, Summary
from pipeline.datasets.collection import Record, collect, identity
from pipeline.datasets.photo_folders import (
    PHOTO_FOLDERS,
    find,
    is_safe,
    list_photos,
    photo_folder,
)
from pipeline.datasets.splits import unite
from pipeline.datasets.textfiles import read_json_object
from pipeline.errors import InputError

CAPTION_FILES = ("dataset_*.json",)
_SPLITS = {"train": "train", "restval": "train", "val": "dev", "test": "test"}
_FIX = "get the file again, or set dataset.format in params.yaml to its form"


def photos(root: Path) -> dict[str, Path]:
    """Return image_id -> path: the photo folder's photos and those of other folders in root."""
    folder = photo_folder(root)
    inside = {} if folder is None else list_photos(folder)
    beside = list_photos(root, leave_out=PHOTO_FOLDERS)
    return dict(sorted({**inside, **beside}.items()))


def read(root: Path, photos: Collection[str]) -> Annotations:
    """Read the `dataset_*.json` under `root`.

    Raises:
        InputError: there is none, or more than one; it is no JSON, or has no list `images`.
        OSError: it cannot be read.
    """
    paths = sorted(root.glob(CAPTION_FILES[0]))
    if len(paths) != 1:
        names = ", ".join(path.name for path in paths)
        raise InputError(
            f"{root} holds {names or 'no captions'}: keep the one file {CAPTION_FILES[0]} "
            "that describes the photos there"
        )
    summary = Summary()
    images = read_json_object(paths[0], _FIX, summary).get("images")
    if not isinstance(images, list):
        raise InputError(f"{paths[0]}: key images holds no list: {_FIX}")
    splits = _splits(images, photos, paths[0].name, summary)
    return collect(_records(images, paths[0].name), photos, splits, summary)


def _records(images: list[Any], file_name: str) -> Iterator[Record]:
    for position, image in enumerate(images):
        where = f"{file_name}: images[{position}]"
        sentences = image.get("sentences") if isinstance(image, dict) else None
        if not isinstance(sentences, list):
            yield Record(where, (), None, image)
            continue
        names = _names(image)
        for index, sentence in enumerate(sentences):
            is_object = isinstance(sentence, dict)
            yield Record(
                f"{where}.sentences[{index}]",
                names,
                identity(sentence, "sentid"),
                sentence.get("raw") if is_object else sentence,
            )


def _splits(
    images: list[Any], photos: Collection[str], file_name: str, summary: Summary
) -> dict[str, str]:
    lists: dict[str, list[str]] = {}
    for position, image in enumerate(images):
        names = _names(image) if isinstance(image, dict) else ()
        if not names or not all(is_safe(name) for name in names):
            continue
        image_id, _ = find(names, photos)
        split = image.get("split")
        if not isinstance(split, str) or split not in _SPLITS:
            summary.note("unknown_split", f"{file_name}: images[{position}]", reprlib.repr(split))
        elif image_id is not None:
            lists.setdefault(_SPLITS[split], []).append(image_id)
    return unite(lists, file_name, summary)


def _names(image: dict[str, Any]) -> tuple[str, ...]:
    file_name, file_path = image.get("filename"), image.get("filepath")
    if not isinstance(file_name, str):
        return ()
    if isinstance(file_path, str) and file_path:
        return (f"{file_path}/{file_name}", file_name)
    return (file_name,)
