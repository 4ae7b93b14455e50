"""Formats: the four caption forms behind one pair of functions."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.datasets import coco, flickr8k, kaggle, karpathy
from pipeline.datasets.annotations import Annotations
from pipeline.datasets.photo_folders import PHOTO_FOLDERS, list_photos, photo_folder
from pipeline.errors import InputError

_CAPTION_FILES = {
    "flickr8k": flickr8k.CAPTION_FILES,
    "kaggle": kaggle.CAPTION_FILES,
    "karpathy": karpathy.CAPTION_FILES,
    "coco": coco.CAPTION_FILES,
}
CAPTION_FORMATS = tuple(_CAPTION_FILES)


def photos(format_name: str, root: Path) -> dict[str, Path]:
    """Return image_id -> path of every candidate photo of a data set, sorted by image_id.

    Only names are looked at (see `photo_folders.list_photos`), so not every path need lead
    to a photo. An image_id is a POSIX path relative to the photo folder, for COCO's photos
    with their folder's name in it.

    Raises:
        InputError: no such format, no such root, no photo folder, or no photo in it.
    """
    with _usable(format_name, root):
        found = _list(format_name, root)
    if not found:
        raise InputError(f"{root} holds no photos: {_mend(format_name, root)}")
    return found


def photos_left(format_name: str, root: Path) -> dict[str, Path]:
    """Return what `photos` does; nothing where the photos, once encoded, were removed."""
    try:
        return photos(format_name, root)
    except InputError:
        return {}


def read(
    format_name: str, root: Path, *, split_seed: int, dev_share: float, test_share: float
) -> Annotations:
    """Read a data set's captions, with every one accounted for.

    Args:
        format_name: one of `CAPTION_FORMATS`.
        root: the data set's folder.
        split_seed: what draws the splits where the format has none.
        dev_share: the share of photos drawn for dev, in [0, 1].
        test_share: the share of photos drawn for test, in [0, 1].

    Raises:
        InputError: a file is missing or is not of that format, or nothing is left for
            training; the message names the mend.
    """
    with _usable(format_name, root):
        if not _has_captions(format_name, root):
            raise InputError(f"{root} holds no captions of that form: {_mend(format_name, root)}")
    there = photos(format_name, root)
    with _usable(format_name, root):
        drawing = {"dev_share": dev_share, "test_share": test_share}
        if format_name == "flickr8k":
            annotations = flickr8k.read(root, there)
        elif format_name == "karpathy":
            annotations = karpathy.read(root, there)
        elif format_name == "kaggle":
            annotations = kaggle.read(root, there, split_seed=split_seed, **drawing)
        else:
            annotations = coco.read(root, there, split_seed=split_seed, **drawing)
    problem = annotations.summary.why_untrainable()
    if problem is not None:
        raise InputError(f"{root} leaves {problem}: {_mend(format_name, root)}")
    return annotations


def _list(format_name: str, root: Path) -> dict[str, Path]:
    if format_name == "karpathy":
        return karpathy.photos(root)
    if format_name == "coco":
        return coco.photos(root)
    folder = photo_folder(root)
    return {} if folder is None else list_photos(folder)


@contextmanager
def _usable(format_name: str, root: Path) -> Iterator[None]:
    """Turn what the file system refuses, and names of nothing, into an `InputError`."""
    if format_name not in CAPTION_FORMATS:
        raise InputError(
            f"params.yaml: dataset.format is {format_name!r}: set it to one of {', '.join(CAPTION_FORMATS)}"
        )
    try:
        if not root.is_dir():
            raise InputError(
                f"{root} is no folder: set dataset.root in params.yaml to the data set's"
            )
        yield
    except OSError as error:
        raise InputError(
            f"{error.filename or root} cannot be read ({error.strerror}): "
            "make it readable, or set dataset.root in params.yaml to another folder"
        ) from None


def _has_captions(format_name: str, root: Path) -> bool:
    return any(any(root.glob(pattern)) for pattern in _CAPTION_FILES[format_name])


def _mend(format_name: str, root: Path) -> str:
    """Say what the format expects, and which other format would find its files."""
    files = " or ".join(_CAPTION_FILES[format_name])
    folders = ", ".join(PHOTO_FOLDERS)
    fix = f"{format_name} expects {files}, and .jpg, .png or .webp photos in one of {folders}"
    if format_name in {"karpathy", "coco"}:
        fix += ", or in folders such as train2014"
    others = [name for name in CAPTION_FORMATS if name != format_name and _has_captions(name, root)]
    if others:
        fitting = " or ".join(f"dataset.format: {name}" for name in others)
        fix += f"; by its files, {fitting} would fit"
    return fix
