"""Formats: the table of caption formats, and one pair of functions for all of them."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pipeline.datasets import coco, flickr8k, kaggle, karpathy
from pipeline.datasets.annotations import Annotations, Summary
from pipeline.datasets.duplicates import note_duplicates
from pipeline.datasets.file_shapes import identify_shape
from pipeline.datasets.markup import note_markup
from pipeline.datasets.photo_folders import (
    PHOTO_FOLDERS,
    FolderContents,
    find_photo_folder,
    list_folder,
    list_photos,
)
from pipeline.datasets.photo_names import PhotoIndex
from pipeline.errors import InputError

# Files that may have captions, for the hint of an error.
_TEXT_SUFFIXES = frozenset({".csv", ".json", ".jsonl", ".token", ".tsv", ".txt"})
_MAX_HINTS = 2


def _photos_in_one_folder(root: Path) -> FolderContents:
    folder = find_photo_folder(root)
    return FolderContents() if folder is None else list_folder(folder)


@dataclass(frozen=True)
class Format:
    """A caption format.

    Attributes:
        caption_files: patterns of the files that it reads.
        read: returns the annotations of a root and the image_ids there; a format that draws its
            splits also takes `split_seed`, `dev_share` and `test_share`.
        draws_splits: whether its files say nothing of splits.
        find_photos: returns the photos of a root, and the other files of its photo folders.
        photos: where the photos have to be, for the hint of an error.
    """

    caption_files: tuple[str, ...]
    read: Callable[..., Annotations]
    draws_splits: bool = False
    find_photos: Callable[[Path], FolderContents] = _photos_in_one_folder
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

    Files with a photo's suffix are not opened (see `photo_folders.list_folder`), so a path may
    turn out not to be a photo. An image_id is a POSIX path relative to the photo folder; for
    COCO's photos it includes the name of their folder.

    Raises:
        InputError: the format or the root does not exist, there are no photos, or DVC does not
            track them.
    """
    photos = _list_files(format_name, root).photos
    _check_tracked(root, photos)
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
        InputError: a file is missing or not of that format, no captions remain for training, or
            DVC does not track the photos; the message says how to fix it.
    """
    with _report_as_input_error(format_name, root):
        if not _has_caption_files(format_name, root):
            raise InputError(
                f"{root} has no captions of that format: {_format_hint(format_name, root)}"
            )
    files = _list_files(format_name, root)
    with _report_as_input_error(format_name, root):
        splits = {"split_seed": split_seed, "dev_share": dev_share, "test_share": test_share}
        reader = _FORMATS[format_name]
        photos = PhotoIndex(files.photos, files.other_files)
        annotations = reader.read(root, photos, **(splits if reader.draws_splits else {}))
        _check_summary(annotations.summary, format_name, root)
        _check_tracked(root, files.photos)
    annotations.summary.add_other_files(files.other_files)
    note_markup(annotations.summary, annotations.rows)
    photo_splits = {row.image_id: row.split for row in annotations.rows}
    note_duplicates(annotations.summary, files.photos, root, photo_splits)
    return annotations


def _list_files(format_name: str, root: Path) -> FolderContents:
    with _report_as_input_error(format_name, root):
        files = _FORMATS[format_name].find_photos(root)
        if not files.photos:
            raise InputError(f"{root} has no photos: {_no_photos_hint(format_name, root, files)}")
    return files


def _check_summary(summary: Summary, format_name: str, root: Path) -> None:
    """Check that the captions are in the format, and that some can be trained on."""
    path = _caption_files(format_name, root)[0]
    if problem := summary.why_another_format():
        shape = identify_shape(path)
        hint = str(shape) if shape else _format_hint(format_name, root)
        if shape is None and summary.repaired.get("unquoted_comma"):
            hint = (
                "put quotes around every caption that contains commas; if the rows have more than "
                "one caption or other columns, keep a name and one caption a row"
            )
        raise InputError(f"{path} is not in the format {format_name}: {problem}; {hint}")
    if problem := summary.why_untrainable():
        raise InputError(f"{root} has {problem}: {_format_hint(format_name, root)}")


def _check_tracked(root: Path, photos: Mapping[str, Path]) -> None:
    """Check that DVC sees the photos: else it would not notice when they change.

    DVC follows the link that a data set's folder is, and links to files. It does not follow links
    to folders within a data set, nor does it enter another DVC project.
    """
    parents = {os.path.dirname(path) for path in photos.values()}  # noqa: PTH120  (many paths)
    folders = {folder for parent in parents for folder in (Path(parent), *Path(parent).parents)}
    # A link from inside a photo folder to the outside is no concern: its photos are refused.
    for top in sorted(folder for folder in folders if folder.parent == root):
        target = Path(os.path.realpath(top))
        if not target.is_relative_to(os.path.realpath(root)):
            raise InputError(
                f"{top} is a link to {target}, and DVC follows no such link: it would not notice "
                "when photos change. Put the captions beside that folder, call it one of "
                f"{', '.join(PHOTO_FOLDERS)}, and set dataset.root in params.yaml to the folder "
                f"of both; or make {root} itself the link; or put the photos in place of {top}"
            )
    for folder in sorted(folder for folder in folders if folder.is_relative_to(root)):
        if folder != root and (folder / ".dvc").is_dir():
            raise InputError(
                f"{folder} is a DVC project of its own, which DVC does not track as part of "
                f"{root}: remove {folder / '.dvc'}, or set dataset.root in params.yaml to {folder}"
            )


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
    return bool(_caption_files(format_name, root))


def _caption_files(format_name: str, root: Path) -> list[Path]:
    patterns = _FORMATS[format_name].caption_files
    return sorted(path for pattern in patterns for path in root.glob(pattern))


def _format_hint(format_name: str, root: Path) -> str:
    """Return what files the format expects, and what could be done with those in root."""
    expected = _FORMATS[format_name]
    files = " or ".join(expected.caption_files)
    hint = f"{format_name} expects {files}, and JPEG, PNG or WebP photos {expected.photos}"
    others = [
        name for name in CAPTION_FORMATS if name != format_name and _has_caption_files(name, root)
    ]
    if others:
        matching = " or ".join(f"dataset.format: {name}" for name in others)
        return f"{hint}; {matching} would match its files"
    return hint + "".join(f"; {text}" for text in _other_caption_files(root))


def _other_caption_files(root: Path) -> Iterator[str]:
    """Yield what the first text files of root look like that are of no known name."""
    known = {path for name in CAPTION_FORMATS for path in _caption_files(name, root)}
    paths = sorted(path for path in root.iterdir() if path.suffix.lower() in _TEXT_SUFFIXES)
    shapes = ((path, identify_shape(path)) for path in paths if path not in known)
    for path, shape in islice(((path, shape) for path, shape in shapes if shape), _MAX_HINTS):
        yield f"{path.name} is there; {shape}"


def _no_photos_hint(format_name: str, root: Path, files: FolderContents) -> str:
    """Return where photos are expected, and what there is instead."""
    hint = _format_hint(format_name, root)
    types = Counter(files.other_files.values())
    hint += "".join(
        f"; its photo folder has {file_type.count(count)}: {file_type.fix}"
        for file_type, count in types.most_common(_MAX_HINTS)
    )
    folders = [
        path.name
        for path in sorted(root.iterdir())
        if not path.name.startswith(".") and path.is_dir() and list_photos(path)
    ]
    if folders and not files.other_files:
        hint += f"; its folder {folders[0]} has photos: rename it to images"
    return hint
