"""Splits: which photos train the model, which select its epoch, and which score it."""

import hashlib

SPLITS = ("train", "dev", "test")
# CIDEr-D selects epochs and is the main score. It weighs words by the share of photos that they
# occur in, so it is meaningless for a single photo.
MIN_PHOTOS_PER_SPLIT = 2


def draw_split(image_id: str, seed: int, *, dev_share: float, test_share: float) -> str:
    """Draw a photo's split from the seed and its image_id alone.

    The split does not depend on other photos, so adding or removing a photo moves no other photo.
    The shares lie in [0, 1]; the rest is train.
    """
    digest = hashlib.sha256(f"{seed}\0{image_id}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < test_share:
        return "test"
    if position < test_share + dev_share:
        return "dev"
    return "train"
