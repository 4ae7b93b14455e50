"""Decoding photos: bytes of a stranger's file to a square of RGB pixels."""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.features.views import VIEWS

PHOTO_FORMATS = ("JPEG", "PNG", "WEBP")
_THUMBNAIL_MAX_PIXELS = 1 << 28
# 512 MiB: what 100 million pixels take as 16-bit RGB, not compressed at all, and no photo does.
MAX_BYTES = 1 << 29
# Progressive JPEGs have about ten. Each costs a pass over all pixels and a hundred bytes, so
# that a small file could keep a decoder busy for hours.
_MAX_SCANS = 100
_STRIP = 256  # rows

# How their files begin.
SIGNATURE = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP", re.DOTALL)
# A marker that a length follows, or the end; the others stand alone, most in the pixels.
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\x01\xff\xd0-\xd7])", re.DOTALL)
_JPEG_SCAN, _JPEG_END = b"\xda", b"\xd9"

# Says in every feature store how pixels were made; change it when `decode` changes.
DECODING = "first frame, EXIF rotation, transparency on white, RGB, stretched to a square (bicubic)"

# What Pillow's decoders raise on damaged input. `OSError` covers unknown formats and
# truncated files; the others come from parsers that met impossible numbers.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError,
           ArithmeticError, struct.error, zlib.error)  # fmt: skip

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
        PhotoError: a folder, an unreadable or huge file, or a link out of `folder`.
    """
    try:
        if folder is not None and not path.resolve().is_relative_to(folder.resolve()):
            raise PhotoError("a link to a file outside the photo folder")
        if path.exists() and not path.is_file():
            raise PhotoError("not a file")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise PhotoError(f"{size} bytes, more than any photo has")
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


def decode(data: bytes, size: int, max_pixels: int, views: str = "whole") -> npt.NDArray[np.uint8]:
    """Return a photo's pixels, (V, size, size, 3) RGB, those of its V views.

    Stretched to a square, as the notebook and `keras.utils.load_img` do.

    Args:
        data: the file's bytes: JPEG, PNG or WebP, whatever its name says.
        size: pixels a side.
        max_pixels: a photo whose header tells of more is refused before decoding.
        views: which, a key of `VIEWS`.

    Raises:
        PhotoError: with the reason.
    """
    image = load_rgb(data, size, max_pixels)
    return np.stack([view.show(image, size) for view in VIEWS[views]])


def load_rgb(data: bytes, size: int, max_pixels: int) -> Image.Image:
    """Decode a photo to RGB, at least `2 * size` pixels a side if it has so many.

    The first frame of an animation; turned as its EXIF orientation says; transparency
    on white; 16-bit scaled to 8.

    Raises:
        PhotoError: with the reason.
    """
    try:
        with Image.open(io.BytesIO(data), formats=PHOTO_FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise PhotoError(
                    f"{image.width} x {image.height} pixels, more than max_pixels {max_pixels}"
                )
            if image.format in {"JPEG", "MPO"} and _has_too_many_scans(data):
                raise PhotoError(f"damaged image: more than {_MAX_SCANS} scans")
            # A large JPEG is decoded at a half, quarter or eighth, never below 2 x size.
            image.draft(None, (2 * size, 2 * size))
            image.load()
            if image.format == "PNG":
                _mend_png(image, data)
            ImageOps.exif_transpose(image, in_place=True)  # a copy would be as large as it
            return _rgb(image)
    except UnidentifiedImageError:
        if SIGNATURE.match(data):
            raise PhotoError("damaged image: its header cannot be read") from None
        raise PhotoError("not a JPEG, PNG or WebP image") from None
    except _DAMAGE as error:
        raise PhotoError(f"damaged image: {error}") from None
    except MemoryError:
        raise PhotoError("takes more memory than there is: lower max_pixels") from None


def thumbnail(data: bytes, side: int) -> Image.Image:
    """Return a photo that fits a square of `side` pixels, its proportions kept.

    Raises:
        PhotoError: with the reason.
    """
    image = load_rgb(data, side, _THUMBNAIL_MAX_PIXELS)
    image.thumbnail((side, side), Image.Resampling.BICUBIC)
    return image


def _has_too_many_scans(jpeg: bytes) -> bool:
    if jpeg.count(b"\xff" + _JPEG_SCAN) <= _MAX_SCANS:
        return False
    # Thumbnails and what phones append to a photo, films even, have such bytes as well.
    scans, place = 0, 2
    while (marker := _JPEG_MARKER.search(jpeg, place)) and marker[1] != _JPEG_END:
        scans += marker[1] == _JPEG_SCAN
        place = marker.end() + int.from_bytes(jpeg[marker.end() : marker.end() + 2])
    return scans > _MAX_SCANS


def _mend_png(image: Image.Image, png: bytes) -> None:
    """Do for a loaded PNG what Pillow leaves undone.

    Pillow compares the checksums of all chunks but those of the pixels, takes a missing
    palette for a black one, and leaves a transparent colour at the scale of the file
    where it has brought the pixels to 8 bits.
    """
    depth = 8
    for chunk, checksum in _png_chunks(png):
        if chunk.startswith(b"IHDR"):
            depth = chunk[12]
        elif chunk.startswith(b"IDAT") and zlib.crc32(chunk) != checksum:
            raise PhotoError("damaged image: its pixels do not fit their checksum")
    if image.mode == "P" and not (image.palette and image.palette.palette):
        raise PhotoError("damaged image: its palette is missing")
    colour = image.info.get("transparency")
    if image.mode == "L" and isinstance(colour, int):
        image.info["transparency"] = colour * 255 // ((1 << depth) - 1)
    elif image.mode == "RGB" and isinstance(colour, tuple):
        image.info["transparency"] = tuple(part >> (depth - 8) for part in colour)


def _png_chunks(png: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield each chunk before the last, its kind in front, with its checksum."""
    place = 8  # behind the signature
    while place < len(png):
        end = place + 8 + int.from_bytes(png[place : place + 4])
        chunk = png[place + 4 : end]
        if chunk.startswith(b"IEND"):
            return
        yield chunk, int.from_bytes(png[end : end + 4])
        place = end + 4


def _rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow mode to RGB, a strip at a time where copies are made on the way."""
    if not (image.mode.startswith("I") or image.has_transparency_data):
        return image.convert("RGB")
    rgb = Image.new("RGB", image.size)
    for top in range(0, image.height, _STRIP):
        box = (0, top, image.width, min(top + _STRIP, image.height))
        rgb.paste(_strip_to_rgb(image.crop(box)), box)
    return rgb


def _strip_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion clips at 255
        grey = np.asarray(image)
        shown = (grey >> 8).clip(0, 255)
        shown[grey == image.info.get("transparency", -1)] = 255
        return Image.fromarray(shown.astype(np.uint8), "L").convert("RGB")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")
