"""Caption formats: finds the photos and reads the captions of a data set in any of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.datasets import coco, flickr8k, kaggle, karpathy
from pipeline.datasets.annotations import Annotations
from pipeline.datasets.photo_folders import PHOTO_FOLDERS, find_photo_folder, list_photos
from pipeline.errors import InputError

_CAPTION_FILES = {
    "flickr8k": flickr8k.CAPTION_FILES,
    "kaggle": kaggle.CAPTION_FILES,
    "karpathy": karpathy.CAPTION_FILES,
    "coco": coco.CAPTION_FILES,
}
CAPTION_FORMATS = tuple(_CAPTION_FILES)


def find_photos(format_name: str, root: Path) -> dict[str, Path]:
    """Return image_id -> path of every candidate photo of a data set, sorted by image_id.

    Only names are checked (see `photo_folders.list_photos`), so a path may turn out not to be
    a photo. An image_id is a POSIX path relative to the photo folder; for COCO's photos it
    includes the name of their folder.

    Raises:
        InputError: the format or the root does not exist, or there are no photos.
    """
    with _report_as_input_error(format_name, root):
        photos = _photos_of_format(format_name, root)
    if not photos:
        raise InputError(f"{root} has no photos: {_format_hint(format_name, root)}")
    return photos


def read_annotations(
    format_name: str, root: Path, *, split_seed: int, dev_share: float, test_share: float
) -> Annotations:
    """Read a data set's captions and count every one that is dropped.

    Args:
        format_name: one of `CAPTION_FORMATS`.
        root: the data set's folder.
        split_seed: seed for drawing the splits if the format has none.
        dev_share: the share of photos drawn for dev, in [0, 1].
        test_share: the share of photos drawn for test, in [0, 1].

    Raises:
        InputError: a file is missing or not of that format, or no captions remain for
            training; the message says how to fix it.
    """
    with _report_as_input_error(format_name, root):
        if not _has_caption_files(format_name, root):
            raise InputError(
                f"{root} has no captions of that format: {_format_hint(format_name, root)}"
            )
    photos = find_photos(format_name, root)
    with _report_as_input_error(format_name, root):
        shares = {"dev_share": dev_share, "test_share": test_share}
        if format_name == "flickr8k":
            annotations = flickr8k.read_flickr8k(root, photos)
        elif format_name == "karpathy":
            annotations = karpathy.read_karpathy(root, photos)
        elif format_name == "kaggle":
            annotations = kaggle.read_kaggle(root, photos, split_seed=split_seed, **shares)
        else:
            annotations = coco.read_coco(root, photos, split_seed=split_seed, **shares)
    problem = annotations.summary.why_untrainable()
    if problem is not None:
        raise InputError(f"{root} has {problem}: {_format_hint(format_name, root)}")
    return annotations


def _photos_of_format(format_name: str, root: Path) -> dict[str, Path]:
    if format_name == "karpathy":
        return karpathy.find_karpathy_photos(root)
    if format_name == "coco":
        return coco.find_coco_photos(root)
    folder = find_photo_folder(root)
    return {} if folder is None else list_photos(folder)


@contextmanager
def _report_as_input_error(format_name: str, root: Path) -> Iterator[None]:
    """Check format and root; raise errors of the file system as `InputError`."""
    if format_name not in CAPTION_FORMATS:
        raise InputError(
            f"params.yaml: dataset.format is {format_name!r}: "
            f"set it to one of {', '.join(CAPTION_FORMATS)}"
        )
    try:
        if not root.is_dir():
            raise InputError(
                f"{root} is not a folder: set dataset.root in params.yaml to the data set's folder"
            )
        yield
    except OSError as error:
        raise InputError(
            f"{error.filename or root} cannot be read ({error.strerror}): "
            "make it readable, or set dataset.root in params.yaml to another folder"
        ) from None


def _has_caption_files(format_name: str, root: Path) -> bool:
    return any(any(root.glob(pattern)) for pattern in _CAPTION_FILES[format_name])


def _format_hint(format_name: str, root: Path) -> str:
    """Return which files the format expects, and which other formats match the files in root."""
    files = " or ".join(_CAPTION_FILES[format_name])
    folders = ", ".join(PHOTO_FOLDERS)
    hint = f"{format_name} expects {files}, and .jpg, .png or .webp photos in one of {folders}"
    if format_name in {"karpathy", "coco"}:
        hint += ", or in folders such as train2014"
    others = [
        name for name in CAPTION_FORMATS if name != format_name and _has_caption_files(name, root)
    ]
    if others:
        matching = " or ".join(f"dataset.format: {name}" for name in others)
        hint += f"; {matching} would match its files"
    return hint
