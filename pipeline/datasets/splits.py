"""Splits: which photos train, which choose the model, which score it."""

import hashlib
from collections.abc import Iterable, Mapping

from pipeline.datasets.annotations import Summary

MIN_PHOTOS_PER_SPLIT = 2  # a single photo has no CIDEr-D

# A photo in two lists stays where it does least harm: scores must not see training photos.
_PRECEDENCE = ("test", "dev", "train")


def draw(image_id: str, seed: int, *, dev_share: float, test_share: float) -> str:
    """Draw a photo's split from the seed and its image_id alone.

    No other photo has a say, so a photo that is added or removed moves no other one.
    The shares lie in [0, 1]; what they leave is train.
    """
    digest = hashlib.sha256(f"{seed}\0{image_id}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < test_share:
        return "test"
    if position < test_share + dev_share:
        return "dev"
    return "train"


def unite(lists: Mapping[str, Iterable[str]], where: str, summary: Summary) -> dict[str, str]:
    """Return image_id -> split from split -> image_ids.

    A photo in several lists belongs to the first of test, dev, train that has it; each
    such photo is counted in `summary.photos_in_two_splits`.
    """
    splits: dict[str, str] = {}
    leaks: set[str] = set()
    for split in _PRECEDENCE:
        for image_id in lists.get(split, ()):
            if splits.setdefault(image_id, split) != split and image_id not in leaks:
                leaks.add(image_id)
                kept = splits[image_id]
                summary.note("photo_in_two_splits", where, f"{image_id}: {kept}, not {split}")
    summary.photos_in_two_splits = len(leaks)
    return splits
