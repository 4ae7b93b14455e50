"""Thumbnails: small photos, and attention overlays to lay over them, as data URIs."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.features.decoding.photos import PhotoError, read_photo, thumbnail

# The more photos, the smaller: a page stays below about 25 MB up to 5,000 photos. Photos up to a
# number have a side in pixels; at this quality they take 45, 29, 15, 10 and 5 kB in the page.
_SIDES = {400: 640, 700: 480, 1300: 320, 2000: 240}
_SMALLEST_SIDE = 160
_QUALITY = 55
# Number of opacity steps from clear to darkest, and opacity per step, of 255. Finer steps look
# the same and take twice the bytes.
_STEPS = 15
_OPACITY = 14


@dataclass(frozen=True)
class Thumbnail:
    """A small version of a photo.

    Attributes:
        data_uri: the image itself.
        width: in pixels.
        height: in pixels.
    """

    data_uri: str
    width: int
    height: int


def thumbnail_side(n_photos: int) -> int:
    """Return the longer side of the thumbnails, in pixels, of a page with so many photos."""
    return next((side for limit, side in _SIDES.items() if n_photos <= limit), _SMALLEST_SIDE)


def make_thumbnail(path: Path | None, side: int) -> Thumbnail | None:
    """Return a photo's thumbnail; None if the photo is missing or damaged.

    Args:
        path: the photo.
        side: the thumbnail's longer side, in pixels.
    """
    if path is None:
        return None
    try:
        image = thumbnail(read_photo(path), side)
    except PhotoError:
        return None
    return Thumbnail(_data_uri(image, quality=_QUALITY), image.width, image.height)


def attention_overlay(weights: Sequence[int]) -> str:
    """Return an image to stretch over a photo: clear where attention is high, dark elsewhere.

    Args:
        weights: attention to the positions of a square grid, row by row: from 0, drawn dark, to
            255, drawn clear.
    """
    side = math.isqrt(len(weights))
    grid = np.reshape(np.asarray(weights, np.uint8), (side, side))
    rgba = np.zeros((side, side, 4), np.uint8)
    rgba[..., 3] = np.rint((255 - grid) * (_STEPS / 255)) * _OPACITY
    return _data_uri(Image.fromarray(rgba), lossless=True, quality=100)


def _data_uri(image: Image.Image, **options: Any) -> str:
    data = io.BytesIO()
    image.save(data, "WEBP", **options)
    return f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
