"""Image ids: how different tools name the same photo."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from pipeline.comparison.caption_files import Captions

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
# COCO's files: COCO_val2014_000000000042.jpg, later 000000000042.jpg; its annotations say 42.
_COCO_NAME = re.compile(r"(?:COCO_[a-z]+\d{4}_)?(\d{12})")


def unify_ids(files: Sequence[Captions]) -> list[Captions]:
    """Give equal ids to photos that the files name differently, where that is unambiguous.

    A photo may be named with or without its folder and suffix, or by COCO's number. The ids stay
    as they are if that finds no more photos that all files have, or if two photos of one file
    would get the same id.

    Args:
        files: image_id to captions; the ids of the last one are used for all.
    """
    short_ids = [{short_id(image_id): image_id for image_id in captions} for captions in files]
    unambiguous = all(map(_same_length, short_ids, files))
    shared_now = set.intersection(*map(set, files))
    if not unambiguous or len(set.intersection(*map(set, short_ids))) <= len(shared_now):
        return list(files)
    return [
        {short_ids[-1].get(short, image_id): captions[image_id] for short, image_id in ids.items()}
        for ids, captions in zip(short_ids, files, strict=True)
    ]


def short_id(image_id: str) -> str:
    """Return a photo's name without folder and suffix, or its number in COCO."""
    path = PurePosixPath(image_id.replace("\\", "/"))
    name = path.stem if path.suffix.lower() in _SUFFIXES else path.name
    match = _COCO_NAME.fullmatch(name)
    return str(int(match[1])) if match else name


def _same_length(ids: dict[str, str], captions: Captions) -> bool:
    return len(ids) == len(captions)
