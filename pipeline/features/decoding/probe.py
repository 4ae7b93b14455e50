"""What decoding makes of a few drawn photos: a change in its code shows here."""

import hashlib
import io
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from pipeline.features.decoding.photos import decode_photo

_SIZE = 12  # pixels of the side; not a divisor of the photos' sides
_ORIENTATION = 0x0112  # the EXIF tag
_ROTATED = 6  # by a quarter


@cache
def decoding_sha256(views: str) -> str:
    """Digest the pixels that `decode_photo` makes of drawn photos.

    They are drawn so that every sound build of Pillow gives the same integers: in files without
    loss, and in a JPEG of flat squares.

    Args:
        views: a key of `VIEWS`.
    """
    state = hashlib.sha256()
    for photo in _photos():
        state.update(decode_photo(photo, _SIZE, 100_000, views).tobytes())
    return state.hexdigest()


def _photos() -> list[bytes]:
    """Draw a photo for each step of decoding that does something to some photos only."""
    y, x = np.mgrid[0:20, 0:30]
    alpha = np.where(x < y, 90, 255)
    pixels = np.stack([8 * x, 12 * y, (x * y) % 256, alpha], axis=-1).astype(np.uint8)
    colours = Image.fromarray(pixels[..., :3])
    exif = Image.Exif()
    exif[_ORIENTATION] = _ROTATED
    deep = Image.fromarray((pixels[..., 2].astype(np.uint16) * 256) + 200)
    # Large enough to be decoded at a fraction of its size.
    squares = Image.fromarray(pixels[..., 2].repeat(8, axis=0).repeat(8, axis=1))
    return [
        _encoded(colours, "PNG"),
        _encoded(colours, "PNG", exif=exif),
        _encoded(Image.fromarray(pixels), "PNG"),
        _encoded(colours.convert("P", palette=Image.Palette.WEB, dither=Image.Dither.NONE), "PNG"),
        _encoded(deep, "PNG"),
        _encoded(squares, "JPEG", quality=100),
    ]


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
