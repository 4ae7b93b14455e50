"""Reading and decoding photos: from an untrusted file to a square of RGB pixels."""

import errno
import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.errors import InputError
from pipeline.features.views import VIEWS

PHOTO_FORMATS = ("JPEG", "PNG", "WEBP")
_THUMBNAIL_MAX_PIXELS = 1 << 28
# 512 MiB: the size of 100 million uncompressed pixels in 16-bit RGB; no photo is larger.
MAX_BYTES = 1 << 29
# Progressive JPEGs have about ten scans. A scan can be only a hundred bytes long, but costs a
# pass over all pixels: without a limit, a small file could keep a decoder busy for hours.
_MAX_SCANS = 100
_STRIP_ROWS = 256

# The first bytes of files in these formats.
SIGNATURE = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|RIFF....WEBP", re.DOTALL)
# A marker that is followed by a length, or the end marker. The other markers have no length;
# most of them are part of the pixel data.
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\x01\xff\xd0-\xd7])", re.DOTALL)
_JPEG_SCAN, _JPEG_END = b"\xda", b"\xd9"

# Recorded in every feature store, as part of `FeatureSpec`; change it when `decode_photo` changes.
DECODING = "first frame, EXIF rotation, transparency on white, RGB, stretched to a square (bicubic)"

# The errors that Pillow's decoders raise on damaged input. `OSError` covers unknown formats and
# truncated files; the others come from parsers that read impossible numbers.
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError,
                  ArithmeticError, struct.error, zlib.error)  # fmt: skip

# System errors that are facts about one file: its name, permission, type or links. All others, such
# as a bad disk, a lost network drive or too many open files, say nothing about the photo.
_PHOTO_ERRNOS = frozenset({
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ,
    errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO, errno.EOVERFLOW, errno.EFBIG,
})  # fmt: skip

_SYSTEM_FIXES = {
    errno.EMFILE: "raise the limit of open files (`ulimit -n`) or lower runtime.workers",
    errno.ENFILE: "close programs that hold many files open",
    errno.ENOMEM: "free some memory or lower runtime.workers",
}

# `decode_photo` checks its own limit on the header; Pillow's would warn or raise earlier.
Image.MAX_IMAGE_PIXELS = None
# Pillow warns about odd metadata in photos that it can decode.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class PhotoError(Exception):
    """A photo cannot be used; the message is the reason, as listed among the failed photos."""


@dataclass
class PhotoFile:
    """A photo file, with its bytes if they are still in memory from an earlier read.

    Attributes:
        path: the file.
        data: its bytes, until `take` or `release`; None if they have to be read from the file.
    """

    path: Path
    data: bytes | None = field(default=None, repr=False)

    def take(self) -> bytes:
        """Return the bytes, read from the file if needed, and stop holding them in memory.

        Raises:
            PhotoError: see `read_photo`.
        """
        data, self.data = self.data, None
        return read_photo(self.path) if data is None else data

    def release(self) -> None:
        """Stop holding the bytes in memory."""
        self.data = None


def read_photo(path: Path, folder: Path | None = None) -> bytes:
    """Return the bytes of a photo file.

    Args:
        path: the file.
        folder: if set, the file has to be inside it after links are followed.

    Raises:
        PhotoError: it is a folder, unreadable, empty, huge, or a link out of `folder`.
        InputError: the system fails, whatever the photo is; nothing is known about it.
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
        if error.errno in _PHOTO_ERRNOS:
            raise PhotoError(f"cannot be read: {error.strerror or error}") from None
        reason = error.strerror or error
        fix = _SYSTEM_FIXES.get(error.errno or 0, "check that disk or network drive")
        raise InputError(
            f"{path} could not be read ({reason}), which is no fault of the photo: {fix}, then "
            "rerun (finished work is kept)"
        ) from None
    except ValueError as error:  # a name that no file can have
        raise PhotoError(f"cannot be read: {error}") from None
    except RuntimeError:  # what Python before 3.13 raises for links in a circle
        raise PhotoError("cannot be read: a link to itself") from None
    if not data:
        raise PhotoError("empty file")
    return data


def decode_photo(
    data: bytes, size: int, max_pixels: int, views: str = "whole"
) -> npt.NDArray[np.uint8]:
    """Return the pixels of a photo's V views, (V, size, size, 3) RGB.

    Each view is stretched to a square, as the notebook and `keras.utils.load_img` do.

    Args:
        data: the file's bytes: JPEG, PNG or WebP, whatever the file's name suggests.
        size: side of the square, in pixels.
        max_pixels: a photo with more pixels, according to its header, is refused undecoded.
        views: a key of `VIEWS`.

    Raises:
        PhotoError: with the reason.
    """
    image = load_rgb(data, size, max_pixels)
    return np.stack([view.crop(image, size) for view in VIEWS[views]])


def load_rgb(data: bytes, size: int, max_pixels: int) -> Image.Image:
    """Decode a photo to RGB, with at least `2 * size` pixels a side if the file has that many.

    For an animation, the first frame is decoded. The EXIF orientation is applied, transparency
    is put on white, and 16-bit channels are scaled to 8 bits.

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
            # Decode a large JPEG at a half, a quarter or an eighth, but never below 2 x size.
            image.draft(None, (2 * size, 2 * size))
            image.load()
            if image.format == "PNG":
                _repair_png(image, data)
            ImageOps.exif_transpose(image, in_place=True)  # a copy would double the memory
            return _rgb(image)
    except UnidentifiedImageError:
        if SIGNATURE.match(data):
            raise PhotoError("damaged image: its header cannot be read") from None
        raise PhotoError("not a JPEG, PNG or WebP image") from None
    except _DECODE_ERRORS as error:
        raise PhotoError(f"damaged image: {error}") from None
    except MemoryError:
        raise PhotoError("takes more memory than there is: lower max_pixels") from None


def thumbnail(data: bytes, side: int) -> Image.Image:
    """Decode a photo and shrink it to fit a square of `side` pixels, keeping its aspect ratio.

    Raises:
        PhotoError: with the reason.
    """
    image = load_rgb(data, side, _THUMBNAIL_MAX_PIXELS)
    image.thumbnail((side, side), Image.Resampling.BICUBIC)
    return image


def _has_too_many_scans(jpeg: bytes) -> bool:
    if jpeg.count(b"\xff" + _JPEG_SCAN) <= _MAX_SCANS:
        return False
    # These bytes also occur in thumbnails and in data, such as videos, that phones append to a
    # photo: follow the markers to count the photo's own scans.
    scans, offset = 0, 2
    while (marker := _JPEG_MARKER.search(jpeg, offset)) and marker[1] != _JPEG_END:
        scans += marker[1] == _JPEG_SCAN
        offset = marker.end() + int.from_bytes(jpeg[marker.end() : marker.end() + 2])
    return scans > _MAX_SCANS


def _repair_png(image: Image.Image, png: bytes) -> None:
    """Check and scale the parts of a loaded PNG that Pillow does not.

    Pillow verifies the checksums of all chunks except the pixels', treats a missing palette
    as a black one, and scales the pixels to 8 bits but not the transparent colour.
    """
    depth = 8
    for chunk, checksum in _png_chunks(png):
        if chunk.startswith(b"IHDR"):
            depth = chunk[12]
        elif chunk.startswith(b"IDAT") and zlib.crc32(chunk) != checksum:
            raise PhotoError("damaged image: its pixels do not match their checksum")
    if image.mode == "P" and not (image.palette and image.palette.palette):
        raise PhotoError("damaged image: its palette is missing")
    colour = image.info.get("transparency")
    if image.mode == "L" and isinstance(colour, int):
        image.info["transparency"] = colour * 255 // ((1 << depth) - 1)
    elif image.mode == "RGB" and isinstance(colour, tuple):
        image.info["transparency"] = tuple(value >> (depth - 8) for value in colour)


def _png_chunks(png: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield each chunk before the last one, starting with its type, and its checksum."""
    offset = 8  # after the signature
    while offset < len(png):
        end = offset + 8 + int.from_bytes(png[offset : offset + 4])
        chunk = png[offset + 4 : end]
        if chunk.startswith(b"IEND"):
            return
        yield chunk, int.from_bytes(png[end : end + 4])
        offset = end + 4


def _rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow mode to RGB, in strips where the conversion makes copies."""
    if not (image.mode.startswith("I") or image.has_transparency_data):
        return image.convert("RGB")
    rgb = Image.new("RGB", image.size)
    for top in range(0, image.height, _STRIP_ROWS):
        box = (0, top, image.width, min(top + _STRIP_ROWS, image.height))
        rgb.paste(_strip_to_rgb(image.crop(box)), box)
    return rgb


def _strip_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion clips at 255
        grey = np.asarray(image)
        scaled = (grey >> 8).clip(0, 255)
        scaled[grey == image.info.get("transparency", -1)] = 255
        return Image.fromarray(scaled.astype(np.uint8), "L").convert("RGB")
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB")
