"""Photo folders: where a data set keeps its photos, and which names in a file mean them."""

import errno
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath
from unicodedata import normalize

# Flicker8k_Dataset is how the data set's own archive spells it.
PHOTO_FOLDERS = ("images", "Images", "Flicker8k_Dataset", "Flickr8k_Dataset")
PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})

# The original token file says 2258277193_586949ec62.jpg.1 where the photo ends in .jpg.
_STRAY_SUFFIX = re.compile(r"\.[0-9]+\Z")
_DRIVE = re.compile(r"[A-Za-z]:")


def photo_folder(root: Path) -> Path | None:
    """Return the first of `PHOTO_FOLDERS` that exists under `root`; None if none does."""
    return next((root / name for name in PHOTO_FOLDERS if (root / name).is_dir()), None)


def list_photos(folder: Path, leave_out: Collection[str] = ()) -> dict[str, Path]:
    """Return image_id -> path of everything under `folder` that looks like a photo.

    The suffix decides, in any case; nothing is opened. So links that lead nowhere,
    unreadable files and folders named like photos are in it: whoever decodes them has to
    say what is wrong with them. Hidden names (a dot first) are not. An image_id is the
    path relative to `folder` with forward slashes. Bytes of a file name that are no UTF-8
    stand in it as backslash escapes and backslashes double, so that no two files share one.

    Args:
        folder: the folder to walk, with its subfolders.
        leave_out: names of subfolders of `folder` that are not walked.

    Raises:
        OSError: a folder cannot be listed.
    """
    found: dict[str, Path] = {}
    pending = [(folder, "", frozenset({os.path.realpath(folder)}))]
    while pending:
        current, prefix, ancestors = pending.pop()
        with os.scandir(current) as listing:
            entries = [entry for entry in listing if not entry.name.startswith(".")]
        for entry in entries:
            escaped = os.fsencode(entry.name.replace("\\", "\\\\"))
            name = escaped.decode("utf-8", errors="backslashreplace")
            if Path(entry.name).suffix.lower() in PHOTO_SUFFIXES:
                found[prefix + name] = Path(entry.path)
            elif _is_folder(entry) and (prefix or entry.name not in leave_out):
                target = os.path.realpath(entry.path)
                if target not in ancestors:  # a link to a folder above would never end
                    pending.append((Path(entry.path), f"{prefix}{name}/", ancestors | {target}))
    return dict(sorted(found.items()))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself is no folder
            return False
        raise


def is_safe(name: str) -> bool:
    """Tell whether a name from a caption file can only mean something inside a photo folder."""
    return (
        bool(name)
        and not name.startswith("/")
        and not _DRIVE.match(name)
        and "\\" not in name
        and "\0" not in name
        and ".." not in PurePosixPath(name).parts
        and not any("\ud800" <= character <= "\udfff" for character in name)
    )


def find(names: Iterable[str], photos: Collection[str]) -> tuple[str | None, bool]:
    """Find the photo that a caption file means.

    An accent may be a character of its own or a part of its letter's: archives made on macOS
    have names of the one form (Unicode NFD), most text is of the other (NFC).

    Args:
        names: what the photo may be called, the likeliest first.
        photos: the image_ids that are there.

    Returns:
        The image_id, None if there is no such photo; and whether a stray suffix (`.1`)
        stands at the end of the name.
    """
    plain = [str(PurePosixPath(name)) for name in names]
    if there := _first(plain, photos):
        return there, False
    repaired = [_STRAY_SUFFIX.sub("", name) for name in plain]
    stray = repaired != plain and any(
        PurePosixPath(name).suffix.lower() in PHOTO_SUFFIXES for name in repaired
    )
    return _first(repaired, photos) if stray else None, stray


def _first(names: Iterable[str], photos: Collection[str]) -> str | None:
    forms = ((name, normalize("NFC", name), normalize("NFD", name)) for name in names)
    return next((form for of_name in forms for form in of_name if form in photos), None)
