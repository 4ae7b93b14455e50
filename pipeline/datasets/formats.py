"""Formats: the table of caption formats, and one pair of functions for all of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.datasets import coco, flickr8k, kaggle, karpathy
from pipeline.datasets.annotations import Annotations
from pipeline.datasets.photo_folders import PHOTO_FOLDERS, find_photo_folder, list_photos
from pipeline.errors import InputError


def _photos_in_one_folder(root: Path) -> dict[str, Path]:
    folder = find_photo_folder(root)
    return {} if folder is None else list_photos(folder)


@dataclass(frozen=True)
class Format:
    """A caption format.

    Attributes:
        caption_files: patterns of the files that it reads.
        read: returns the annotations of a root and the image_ids there; a format that draws its
            splits also takes `split_seed`, `dev_share` and `test_share`.
        draws_splits: whether its files say nothing of splits.
        find_photos: returns image_id -> path of the photos of a root.
        photos: where the photos have to be, for the hint of an error.
    """

    caption_files: tuple[str, ...]
    read: Callable[..., Annotations]
    draws_splits: bool = False
    find_photos: Callable[[Path], dict[str, Path]] = _photos_in_one_folder
    photos: str = f"in one of {', '.join(PHOTO_FOLDERS)}"


_SEVERAL_FOLDERS = f"{Format.photos}, or in folders such as train2014"
_FORMATS = {
    "flickr8k": Format(flickr8k.CAPTION_FILES, flickr8k.read_flickr8k),
    "kaggle": Format(kaggle.CAPTION_FILES, kaggle.read_kaggle, draws_splits=True),
    "karpathy": Format(
        karpathy.CAPTION_FILES,
        karpathy.read_karpathy,
        find_photos=karpathy.find_karpathy_photos,
        photos=_SEVERAL_FOLDERS,
    ),
    "coco": Format(
        coco.CAPTION_FILES,
        coco.read_coco,
        draws_splits=True,
        find_photos=coco.find_coco_photos,
        photos=_SEVERAL_FOLDERS,
    ),
}
CAPTION_FORMATS = tuple(_FORMATS)


def find_photos(format_name: str, root: Path) -> dict[str, Path]:
    """Return image_id -> path of every candidate photo of a data set, sorted by image_id.

    Only names are checked (see `photo_folders.list_photos`), so a path may turn out not to be
    a photo. An image_id is a POSIX path relative to the photo folder; for COCO's photos it
    includes the name of their folder.

    Raises:
        InputError: the format or the root does not exist, or there are no photos.
    """
    with _report_as_input_error(format_name, root):
        photos = _FORMATS[format_name].find_photos(root)
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
        splits = {"split_seed": split_seed, "dev_share": dev_share, "test_share": test_share}
        reader = _FORMATS[format_name]
        annotations = reader.read(root, photos, **(splits if reader.draws_splits else {}))
    problem = annotations.summary.why_untrainable()
    if problem is not None:
        raise InputError(f"{root} has {problem}: {_format_hint(format_name, root)}")
    return annotations


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
    return any(any(root.glob(pattern)) for pattern in _FORMATS[format_name].caption_files)


def _format_hint(format_name: str, root: Path) -> str:
    """Return what files the format expects, and which other formats would match those in root."""
    expected = _FORMATS[format_name]
    files = " or ".join(expected.caption_files)
    hint = f"{format_name} expects {files}, and .jpg, .png or .webp photos {expected.photos}"
    others = [
        name for name in CAPTION_FORMATS if name != format_name and _has_caption_files(name, root)
    ]
    if others:
        matching = " or ".join(f"dataset.format: {name}" for name in others)
        hint += f"; {matching} would match its files"
    return hint
