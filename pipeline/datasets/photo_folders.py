"""Photo folders: where a data set keeps its photos, and how names in a file match them."""

import errno
import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from pipeline.image_types import FileType, identify_file

# The names under which the published archives unpack: Flicker8k_Dataset is Flickr8k's own spelling,
# flickr30k-images is Flickr30k's name, and flickr30k_images that of its copy on Kaggle.
PHOTO_FOLDERS = (
    "images",
    "Images",
    "Flicker8k_Dataset",
    "Flickr8k_Dataset",
    "flickr30k-images",
    "flickr30k_images",
)
# Files with these suffixes are listed unopened: if one is no photo, the decoder says what it is.
PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
# What systems put into folders, in lower case. `.dvcignore` has them too.
SYSTEM_NAMES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "__macosx"})

# The original token file has 2258277193_586949ec62.jpg.1 where the photo's name ends in .jpg.
_STRAY_SUFFIX = re.compile(r"\.[0-9]+\Z")
_DRIVE = re.compile(r"[A-Za-z]:")
_UNREADABLE = FileType("an unreadable file", "make it readable", is_picture=False)


@dataclass(frozen=True)
class FolderContents:
    """The files of a photo folder.

    Attributes:
        photos: image_id -> path, sorted: everything that is, or is named like, a photo. An
            image_id is the path relative to the photo folder with forward slashes. Bytes of a
            file name that are not UTF-8 become backslash escapes, and backslashes are doubled,
            so that no two files share an image_id.
        other_files: name -> type of every other file, sorted; named like the photos.
    """

    photos: dict[str, Path] = field(default_factory=dict)
    other_files: dict[str, FileType] = field(default_factory=dict)

    def __or__(self, other: "FolderContents") -> "FolderContents":
        """Return the files of both; where names are equal, those of `other`."""
        return FolderContents(
            dict(sorted((self.photos | other.photos).items())),
            dict(sorted((self.other_files | other.other_files).items())),
        )

    def below(self, folder: str) -> "FolderContents":
        """Return the files with the name of a folder in front of their names."""
        return FolderContents(
            {f"{folder}/{image_id}": path for image_id, path in self.photos.items()},
            {f"{folder}/{name}": file_type for name, file_type in self.other_files.items()},
        )


def find_photo_folder(root: Path) -> Path | None:
    """Return the first of `PHOTO_FOLDERS` that exists under `root`; None if none does."""
    return next((root / name for name in PHOTO_FOLDERS if (root / name).is_dir()), None)


def list_photos(folder: Path, exclude: Collection[str] = ()) -> dict[str, Path]:
    """Return the photos of `list_folder`."""
    return list_folder(folder, exclude).photos


def list_folder(folder: Path, exclude: Collection[str] = ()) -> FolderContents:
    """Tell the photos under `folder` from all other files.

    A name with a photo's suffix, in upper or lower case, is taken for a photo unopened. The
    result therefore includes broken links, unreadable files and folders named like photos: the
    decoder has to report what is wrong with them. Of all other files the first bytes decide.
    Hidden names (with a leading dot) and `SYSTEM_NAMES` are skipped.

    Args:
        folder: the folder to walk, with its subfolders.
        exclude: names of direct subfolders of `folder` that are not walked.

    Raises:
        OSError: a folder cannot be listed.
    """
    photos: dict[str, Path] = {}
    other_files: dict[str, FileType] = {}
    pending = [(folder, "", frozenset({os.path.realpath(folder)}))]
    while pending:
        current, prefix, ancestors = pending.pop()
        for entry in _visible_entries(current):
            escaped = os.fsencode(entry.name.replace("\\", "\\\\"))
            name = prefix + escaped.decode("utf-8", errors="backslashreplace")
            if Path(entry.name).suffix.lower() in PHOTO_SUFFIXES:
                photos[name] = Path(entry.path)
            elif _is_folder(entry):
                target = os.path.realpath(entry.path)
                # Following a link to a parent would never end.
                if target not in ancestors and (prefix or entry.name not in exclude):
                    pending.append((Path(entry.path), f"{name}/", ancestors | {target}))
            elif (file_type := _identify(Path(entry.path))).is_decodable:
                photos[name] = Path(entry.path)
            else:
                other_files[name] = file_type
    return FolderContents(dict(sorted(photos.items())), dict(sorted(other_files.items())))


def _visible_entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as listing:
        return [
            entry
            for entry in listing
            if not entry.name.startswith(".") and entry.name.lower() not in SYSTEM_NAMES
        ]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself is not a folder
            return False
        raise


def _identify(path: Path) -> FileType:
    try:
        return identify_file(path)
    except OSError:
        return _UNREADABLE


def is_safe_name(name: str) -> bool:
    """Return whether a name from a caption file can only refer to a path in a photo folder."""
    return (
        bool(name)
        and not name.startswith("/")
        and not _DRIVE.match(name)
        and "\\" not in name
        and "\0" not in name
        and ".." not in PurePosixPath(name).parts
        and not any("\ud800" <= character <= "\udfff" for character in name)
    )


def match_photo(names: Iterable[str], image_ids: Collection[str]) -> tuple[str | None, bool]:
    """Match the names that a caption file gives for a photo with the existing photos.

    Names match in either Unicode form: archives made on macOS write an accent as a character
    of its own (NFD), while most text has it combined with its letter (NFC).

    Args:
        names: possible names of the photo, the likeliest first.
        image_ids: the existing photos.

    Returns:
        The image_id, or None if there is no such photo; and whether the name ends in a stray
        suffix (`.1`).
    """
    paths = [str(PurePosixPath(name)) for name in names]
    if image_id := _first_existing(paths, image_ids):
        return image_id, False
    repaired = [_STRAY_SUFFIX.sub("", path) for path in paths]
    has_stray_suffix = repaired != paths and any(
        PurePosixPath(path).suffix.lower() in PHOTO_SUFFIXES for path in repaired
    )
    return _first_existing(repaired, image_ids) if has_stray_suffix else None, has_stray_suffix


def _first_existing(names: Iterable[str], image_ids: Collection[str]) -> str | None:
    for name in names:
        for form in (name, normalize("NFC", name), normalize("NFD", name)):
            if form in image_ids:
                return form
    return None
