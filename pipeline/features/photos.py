"""Decoding photos: bytes of a stranger's file to a square of RGB pixels."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP")
_THUMBNAIL_MAX_PIXELS = 1 << 28

# Says in every feature store how pixels were made; change it when `decode` changes.
DECODING = "first frame, EXIF rotation, alpha on white, RGB, stretched to a square (bicubic)"

# What Pillow's decoders raise on damaged input. `OSError` covers unknown formats and
# truncated files; the others come from parsers that met impossible numbers.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError,
           OverflowError, struct.error, zlib.error)  # fmt: skip

# `decode` has its own limit, checked on the header; Pillow's would warn or raise earlier.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns of odd metadata in photos that it decodes all the same.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class PhotoError(Exception):
    """One photo cannot be used; the message is the reason, for a status table."""


def read_photo(path: Path, folder: Path | None = None) -> bytes:
    """Return the bytes of a photo file.

    Args:
        path: the file.
        folder: where set, the file has to be inside it once links are followed.

    Raises:
        PhotoError: a folder, an unreadable file, or a link out of `folder`.
    """
    try:
        if folder is not None and not path.resolve().is_relative_to(folder.resolve()):
            raise PhotoError("a link to a file outside the photo folder")
        if path.exists() and not path.is_file():
            raise PhotoError("not a file")
        data = path.read_bytes()
    except OSError as error:
        raise PhotoError(f"cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # a name that no file can have
        raise PhotoError(f"cannot be read: {error}") from None
    except RuntimeError:  # Python before 3.13 says so of links in a circle
        raise PhotoError("cannot be read: a link to itself") from None
    if not data:
        raise PhotoError("empty file")
    return data


def decode(data: bytes, size: int, max_pixels: int) -> npt.NDArray[np.uint8]:
    """Return a photo's pixels, (size, size, 3) RGB.

    Stretched to a square, as the notebook and `keras.utils.load_img` do.

    Args:
        data: the file's bytes: JPEG, PNG or WebP, whatever its name says.
        size: pixels a side.
        max_pixels: a photo whose header tells of more is refused before decoding.

    Raises:
        PhotoError: with the reason.
    """
    image = load_rgb(data, size, max_pixels)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), dtype=np.uint8)


def load_rgb(data: bytes, size: int, max_pixels: int) -> Image.Image:
    """Decode a photo to RGB, at least `2 * size` pixels a side if it has so many.

    The first frame of an animation; turned as its EXIF orientation says; transparency
    on white; 16-bit scaled to 8.

    Raises:
        PhotoError: with the reason.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise PhotoError(
                    f"{image.width} x {image.height} pixels, more than max_pixels {max_pixels}"
                )
            # A large JPEG is decoded at a half, quarter or eighth, never below 2 x size.
            image.draft(None, (2 * size, 2 * size))
            image.load()
            return _rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise PhotoError("not a JPEG, PNG or WebP image") from None
    except _DAMAGE as error:
        raise PhotoError(f"damaged image: {error}") from None


def thumbnail(data: bytes, side: int) -> Image.Image:
    """Return a photo that fits a square of `side` pixels, its proportions kept.

    Raises:
        PhotoError: with the reason.
    """
    image = load_rgb(data, side, _THUMBNAIL_MAX_PIXELS)
    image.thumbnail((side, side), Image.Resampling.BICUBIC)
    return image


def _rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow mode to RGB."""
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion clips at 255
        grey = np.asarray(image, dtype=np.int64) >> 8
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8), "L").convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")
