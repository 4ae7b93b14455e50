"""Duplicates: photos with equal bytes under different names.

A test photo that is also a training photo makes the scores too good. Duplicates are named, not
moved: published splits have some, and a moved photo would make scores incomparable.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.datasets.annotations import Summary
from pipeline.files import sha256_file

_TAIL_BYTES = 4096


def find_duplicates(photos: Mapping[str, Path], root: Path) -> list[list[str]]:
    """Return the groups of photos with equal bytes, sorted.

    Few photos are read: those of a size that no other has are unique, and photos of one size
    differ in their last bytes, which are compressed pixels. Links out of the photo folder are
    not followed: they are equal if they lead to the same file. Empty and unreadable files are
    left out; `extract` reports them.

    Args:
        photos: image_id -> path.
        root: the data set's folder.
    """
    groups = [sorted(photos)]
    for key in (_size, _digest_tail, sha256_file):
        groups = [part for group in groups for part in _divide(group, photos, root, key)]
    return sorted(groups)


def note_duplicates(
    summary: Summary, photos: Mapping[str, Path], root: Path, splits: Mapping[str, str]
) -> None:
    """Record in `summary` the duplicates among the photos of the splits: image_id -> split."""
    kept = {image_id: photos[image_id] for image_id in splits}
    for group in find_duplicates(kept, root):
        group_splits = {image_id: splits[image_id] for image_id in group}
        distinct = len(set(group_splits.values()))
        summary.duplicates_within_splits += len(group) - distinct
        if distinct > 1:
            summary.duplicates_across_splits.append(group_splits)
            text = ", ".join(f"{image_id} ({split})" for image_id, split in group_splits.items())
            summary.note("same_photo_in_two_splits", "equal bytes", text, len(group))


def _divide(
    group: list[str], photos: Mapping[str, Path], root: Path, key: Callable[[Path], object]
) -> list[list[str]]:
    """Return the parts of a group with equal keys that have more than one photo."""
    parts: dict[object, list[str]] = {}
    for image_id in group:
        path = photos[image_id]
        try:
            value = key(path) if key is _size else _outside_target(path, root) or key(path)
        except OSError:
            continue
        if value:
            parts.setdefault(value, []).append(image_id)
    return [part for part in parts.values() if len(part) > 1]


def _outside_target(path: Path, root: Path) -> str | None:
    """Return where a link out of the photo folder leads; None for other photos."""
    parts = path.relative_to(root).parts
    folder = os.path.realpath(root / parts[0] if len(parts) > 1 else root)
    target = os.path.realpath(path)
    return None if Path(target).is_relative_to(folder) else target


def _size(path: Path) -> int | None:
    """Return the size in bytes; None for what is not a file."""
    status = path.stat()
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _digest_tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return hashlib.sha256(file.read(_TAIL_BYTES)).digest()
