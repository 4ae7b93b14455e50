"""Pictures: photos made small, and shades to lay over them, as data URIs."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.features.photos import PhotoError, read_photo, thumbnail

_SIDE = 240  # pixels; with this quality a thousand photos take about 10 MB
_QUALITY = 55
# Steps from clear to darkest, and opacity a step, of 255: a finer shade looks the same, and
# takes twice the bytes.
_STEPS = 15
_OPACITY = 14


@dataclass(frozen=True)
class Picture:
    """A photo made small.

    Attributes:
        data: a data URI.
        width: in pixels.
        height: in pixels.
    """

    data: str
    width: int
    height: int


def picture(path: Path | None) -> Picture | None:
    """Return a photo made small; None where it is gone or damaged."""
    if path is None:
        return None
    try:
        small = thumbnail(read_photo(path), _SIDE)
    except PhotoError:
        return None
    return Picture(_data_uri(small, quality=_QUALITY), small.width, small.height)


def shade(places: Sequence[int]) -> str:
    """Return a picture to stretch over a photo: clear where a decoder looked, dark elsewhere.

    Args:
        places: of a square grid, row by row: from 0, dark, to 255, clear.
    """
    side = math.isqrt(len(places))
    looked = np.reshape(np.asarray(places, np.uint8), (side, side))
    rgba = np.zeros((side, side, 4), np.uint8)
    rgba[..., 3] = np.rint((255 - looked) * (_STEPS / 255)) * _OPACITY
    return _data_uri(Image.fromarray(rgba), lossless=True, quality=100)


def _data_uri(image: Image.Image, **options: Any) -> str:
    data = io.BytesIO()
    image.save(data, "WEBP", **options)
    return f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
