"""Reading and decoding photos: from an untrusted file to a square of RGB pixels."""

import errno
import io
import os
import struct
import tempfile
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock
from PIL import Image, ImageChops, UnidentifiedImageError

from pipeline.errors import InputError
from pipeline.features.decoding.metadata import BarePhoto, remove_metadata
from pipeline.features.decoding.views import VIEWS
from pipeline.image_types import JPEG, PNG, SIGNATURE_LENGTH, WEBP, FileType, identify

_THUMBNAIL_MAX_PIXELS = 1 << 28
# 512 MiB: the size of 100 million uncompressed pixels in 16-bit RGB; no photo is larger.
MAX_BYTES = 1 << 29
# Progressive JPEGs have about ten scans. A scan can be only a hundred bytes long, but costs a
# pass over all pixels: without a limit, a small file could keep a decoder busy for hours. A large
# photo may have fewer scans: so many that all passes together take a few seconds.
_MAX_SCANS = 100
_MAX_SCANNED_PIXELS = 2_000_000_000
_FEW_SCANS = 20
# Photos that take more memory than this are decoded one at a time, see `_limited_memory`.
_LARGE_BYTES = 1 << 28
_large_photo = threading.Lock()
_POLL_SECONDS = 0.1
# Set when a run ends, so that after Ctrl-C its waiting photos are not decoded one after another.
stop_waiting = threading.Event()
_STRIP_ROWS = 256

# Where a PNG's header has the bits per sample.
_PNG_DEPTH = 24
_PILLOW_FORMATS = {JPEG: "JPEG", PNG: "PNG", WEBP: "WEBP"}
# How to turn a photo upright, by its EXIF orientation.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_JPEG_END = b"\xff\xd9"
# Bytes that the decoder takes for pixels if some are missing, also behind a restart marker.
_NOISE = b"".join(bytes([*range(1, 255), 0xFF, marker]) for marker in range(0xD0, 0xD8))

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
# Pillow keeps pixels in blocks of 16 MiB. The C library may keep such blocks for each thread that
# ever decoded a large photo; blocks of more than 32 MiB go back to the system at once.
Image.core.set_block_size(1 << 26)  # type: ignore[attr-defined]  # documented, but not exported
# Pillow warns about oddities in photos that it can decode.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


class PhotoError(Exception):
    """A photo failed; the message is the reason, as listed among the failed photos."""


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

    Each view is stretched to a square, as the notebook and `keras.utils.load_img` do. If this
    changes for photos that could be decoded before, change `feature_spec.DECODING`, too.

    Args:
        data: the file's bytes: JPEG, PNG or WebP, whatever the file's name suggests.
        size: side of the square, in pixels.
        max_pixels: a photo with more pixels, according to its header, is refused undecoded.
        views: a key of `VIEWS`.

    Raises:
        PhotoError: with the reason.
    """
    with open_rgb(data, size, max_pixels) as image:
        return np.stack([view.crop(image, size) for view in VIEWS[views]])


@contextmanager
def open_rgb(data: bytes, size: int, max_pixels: int) -> Iterator[Image.Image]:
    """Decode a photo to RGB, with at least `2 * size` pixels a side if the file has that many.

    For an animation, the first frame is decoded. The EXIF orientation is applied, transparency
    is put on white, and 16-bit channels are scaled to 8 bits. The body should shrink the photo
    and let go of it: a large one keeps others waiting.

    Raises:
        PhotoError: with the reason.
    """
    file_type = identify(data[:SIGNATURE_LENGTH])
    if not file_type.is_decodable:
        raise PhotoError(file_type.reason)
    try:
        photo = remove_metadata(data)
    except ValueError as error:
        raise PhotoError(f"damaged image: {error}") from None
    pixels = photo.width * photo.height
    if pixels > max_pixels:
        raise PhotoError(
            f"{photo.width} x {photo.height} pixels, more than max_pixels {max_pixels}"
        )
    max_scans = min(_MAX_SCANS, max(_FEW_SCANS, _MAX_SCANNED_PIXELS // max(pixels, 1)))
    if photo.scans > max_scans:
        raise PhotoError(f"damaged image: more than {max_scans} scans")
    with _limited_memory(_decoding_memory(photo, file_type, size)):
        yield _decode(photo, file_type, size)


def thumbnail(data: bytes, side: int) -> Image.Image:
    """Decode a photo and shrink it to fit a square of `side` pixels, keeping its aspect ratio.

    Raises:
        PhotoError: with the reason.
    """
    with open_rgb(data, side, _THUMBNAIL_MAX_PIXELS) as image:
        image.thumbnail((side, side), Image.Resampling.BICUBIC)
        return image


def _decoding_memory(photo: BarePhoto, file_type: FileType, size: int) -> int:
    """Estimate the bytes that a photo takes until it is shrunk."""
    pixels, scale = photo.width * photo.height, 1
    if file_type is JPEG:  # see `_load`
        scale = max(1, min(8, min(photo.width, photo.height) // (2 * size)))
    # Pillow keeps RGB in 4 bytes; converting or turning a photo copies it.
    return pixels * photo.bytes_per_pixel + pixels * 8 // scale**2


@contextmanager
def _limited_memory(size: int) -> Iterator[None]:
    """Let a photo that takes `size` bytes wait while another large one is decoded.

    A file of a few bytes can hold 100 million pixels, and every core decodes a photo at a time.
    Of all threads and processes of a user on a machine, only one decodes a large photo. A file
    lock does that for a cluster's workers, too; the system releases it when its holder dies.

    Raises:
        PhotoError: `stop_waiting` was set meanwhile.
    """
    if size < _LARGE_BYTES:
        yield
        return
    while not _large_photo.acquire(timeout=_POLL_SECONDS):
        if stop_waiting.is_set():
            raise PhotoError("not decoded: the run was stopped")
    try:
        with ExitStack() as stack:
            # Without a folder for temporary files, the limit holds for this process' threads.
            with suppress(OSError):
                user = os.getuid() if hasattr(os, "getuid") else "user"  # not on Windows
                path = Path(tempfile.gettempdir()) / f"caption-large-photo-{user}.lock"
                stack.enter_context(FileLock(path, mode=0o600, fallback_to_soft=False))
            yield
    finally:
        _large_photo.release()


def _decode(photo: BarePhoto, file_type: FileType, size: int) -> Image.Image:
    """Decode a photo to RGB and turn it upright.

    Raises:
        PhotoError: with the reason.
    """
    try:
        if file_type is JPEG:
            image = _load_jpeg(photo, size)
        else:
            image = _load(photo, photo.data, file_type, size)
        if file_type is PNG:
            _repair_png(image, photo.data)
        rgb, turn = _rgb(image), _TURNS.get(photo.orientation)
        return rgb if turn is None else rgb.transpose(turn)
    except UnidentifiedImageError:
        raise PhotoError("damaged image: its header cannot be read") from None
    except _DECODE_ERRORS as error:
        # Without the number of bytes that Pillow had left, which says nothing about the file.
        raise PhotoError(f"damaged image: {str(error).partition(' (')[0]}") from None
    except MemoryError:
        raise PhotoError("takes more memory than there is: lower max_pixels") from None


def _load(photo: BarePhoto, data: bytes, file_type: FileType, size: int) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=[_PILLOW_FORMATS[file_type]]) as image:
        if image.size != (photo.width, photo.height):
            raise PhotoError("damaged image: its size is contradictory")
        # Decode a large JPEG at a half, a quarter or an eighth, but never below 2 x size.
        image.draft(None, (2 * size, 2 * size))
        image.load()
        return image


def _load_jpeg(photo: BarePhoto, size: int) -> Image.Image:
    """Decode a JPEG, also one whose end marker is missing, but not one whose pixels are.

    With an end marker, the decoder makes up pixels that are missing. What it makes up depends
    on the bytes before the marker, which whole pixels do not.
    """
    try:
        return _load(photo, photo.data, JPEG, size)
    except OSError:
        pixels = photo.data.rstrip(b"\xff")  # the first byte of the end marker
        image = _load(photo, pixels + _JPEG_END, JPEG, size)
        other = _load(photo, pixels + 2 * _NOISE + _JPEG_END, JPEG, size)
        if ImageChops.difference(image, other).getbbox() is not None:
            raise
        return image


def _repair_png(image: Image.Image, png: bytes) -> None:
    """Check and scale the parts of a loaded PNG that Pillow does not.

    Pillow treats a missing palette as a black one, and scales the pixels to 8 bits but not the
    transparent colour.

    Args:
        image: is changed.
        png: the file, with its header first.
    """
    depth = png[_PNG_DEPTH]
    if image.mode == "P" and not (image.palette and image.palette.palette):
        raise PhotoError("damaged image: its palette is missing")
    colour = image.info.get("transparency")
    if image.mode == "L" and isinstance(colour, int):
        image.info["transparency"] = colour * 255 // ((1 << depth) - 1)
    elif image.mode == "RGB" and isinstance(colour, tuple):
        image.info["transparency"] = tuple(value >> (depth - 8) for value in colour)


def _rgb(image: Image.Image) -> Image.Image:
    """Convert any Pillow mode to RGB, in strips where the conversion makes copies."""
    if not (image.mode.startswith("I") or image.has_transparency_data):
        # Converting RGB to RGB would copy it.
        return image if image.mode == "RGB" else image.convert("RGB")
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
