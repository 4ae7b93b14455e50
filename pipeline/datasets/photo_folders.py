"""Photo folders: where a data set keeps its photos, and how names in a file match them."""

import errno
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath
from unicodedata import normalize

# Flicker8k_Dataset is the spelling in the data set's own archive.
PHOTO_FOLDERS = ("images", "Images", "Flicker8k_Dataset", "Flickr8k_Dataset")
PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})

# The original token file has 2258277193_586949ec62.jpg.1 where the photo's name ends in .jpg.
_STRAY_SUFFIX = re.compile(r"\.[0-9]+\Z")
_DRIVE = re.compile(r"[A-Za-z]:")


def find_photo_folder(root: Path) -> Path | None:
    """Return the first of `PHOTO_FOLDERS` that exists under `root`; None if none does."""
    return next((root / name for name in PHOTO_FOLDERS if (root / name).is_dir()), None)


def list_photos(folder: Path, exclude: Collection[str] = ()) -> dict[str, Path]:
    """Return image_id -> path of everything under `folder` that is named like a photo.

    Only the suffix counts, in upper or lower case; no file is opened. The result therefore
    includes broken links, unreadable files and folders named like photos: the decoder has to
    report what is wrong with them. Hidden names (with a leading dot) are skipped.
    An image_id is the path relative to `folder` with forward slashes. Bytes of a file name
    that are not UTF-8 become backslash escapes, and backslashes are doubled, so that no two
    files share an image_id.

    Args:
        folder: the folder to walk, with its subfolders.
        exclude: names of direct subfolders of `folder` that are not walked.

    Raises:
        OSError: a folder cannot be listed.
    """
    photos: dict[str, Path] = {}
    pending = [(folder, "", frozenset({os.path.realpath(folder)}))]
    while pending:
        current, prefix, ancestors = pending.pop()
        with os.scandir(current) as listing:
            entries = [entry for entry in listing if not entry.name.startswith(".")]
        for entry in entries:
            escaped = os.fsencode(entry.name.replace("\\", "\\\\"))
            name = escaped.decode("utf-8", errors="backslashreplace")
            if Path(entry.name).suffix.lower() in PHOTO_SUFFIXES:
                photos[prefix + name] = Path(entry.path)
            elif _is_folder(entry) and (prefix or entry.name not in exclude):
                target = os.path.realpath(entry.path)
                if target not in ancestors:  # following a link to a parent would never end
                    pending.append((Path(entry.path), f"{prefix}{name}/", ancestors | {target}))
    return dict(sorted(photos.items()))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself is not a folder
            return False
        raise


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
