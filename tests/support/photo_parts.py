"""Test pictures, parts of photo files, and the expected pixels of hand-made files."""

import os
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from tests.conftest import encoded

WIDTH, HEIGHT = 64, 32  # each quarter is a whole number of JPEG blocks

Array = npt.NDArray[np.int64]
Turn = Image.Transpose

# How a camera stores the same scene when held in each of the eight orientations.
STORED = {
    1: None,
    2: Turn.FLIP_LEFT_RIGHT,
    3: Turn.ROTATE_180,
    4: Turn.FLIP_TOP_BOTTOM,
    5: Turn.TRANSPOSE,
    6: Turn.ROTATE_90,
    7: Turn.TRANSVERSE,
    8: Turn.ROTATE_270,
}


def picture(name: str) -> Image.Image:
    """Draw four quarters in colours that depend on the name."""
    rng = random.Random(os.fsencode(name))
    colours = [[rng.randrange(30, 225) for _ in range(3)] for _ in range(4)]
    quarters = np.array(colours, np.uint8).reshape(2, 2, 3)
    return Image.fromarray(quarters.repeat(HEIGHT // 2, axis=0).repeat(WIDTH // 2, axis=1))


def corners(image: Image.Image) -> Array:
    pixels = np.asarray(image, dtype=np.int64)
    y, x = pixels.shape[0] // 8, pixels.shape[1] // 8
    return pixels[[y, y, -1 - y, -1 - y], [x, -1 - x, x, -1 - x]]


def as_png(image: Image.Image) -> bytes:
    return encoded(image, "PNG")


def as_jpeg(image: Image.Image, **options: object) -> bytes:
    return encoded(image, "JPEG", quality=95, subsampling=0, **options)


def as_webp(image: Image.Image, **options: object) -> bytes:
    return encoded(image, "WEBP", lossless=True, **options)


# Parts of files.


def chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def png(width: int, height: int, depth: int, kind: int, rows: bytes, *extra_chunks: bytes) -> bytes:
    """Build a PNG; `rows` are its pixels, with a filter byte before each row."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra_chunks) + pixels + chunk(b"IEND", b"")


def png_of(samples: npt.NDArray[np.integer], depth: int, kind: int, *extra_chunks: bytes) -> bytes:
    """Build a PNG of unchanged samples, (H, W) or (H, W, C)."""
    if depth == 4:
        packed = (samples[:, ::2] << 4 | samples[:, 1::2]).astype(np.uint8)
    else:
        packed = samples.astype(">u2" if depth == 16 else np.uint8)
    rows = b"".join(b"\0" + line.tobytes() for line in packed)
    return png(samples.shape[1], samples.shape[0], depth, kind, rows, *extra_chunks)


def wide(image: Image.Image) -> npt.NDArray[np.uint16]:
    """Return 16-bit samples whose lower eight bits must not matter."""
    return np.asarray(image, dtype=np.uint16) * np.uint16(256) + np.uint16(90)


def transparent(*colour: int) -> bytes:
    return chunk(b"tRNS", struct.pack(f">{len(colour)}H", *colour))


def with_segment(jpeg: bytes, marker: int, content: bytes) -> bytes:
    length = struct.pack(">H", len(content) + 2)
    return jpeg[:2] + b"\xff" + bytes([marker]) + length + content + jpeg[2:]


def with_frame(jpeg: bytes, header: bytes) -> bytes:
    """Replace a JPEG's bits per sample, height and width."""
    start = jpeg.index(b"\xff\xc0") + 4
    return jpeg[:start] + header + jpeg[start + len(header) :]


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    tags[0x010E] = "a description" * 5
    return tags


def tiff(order: str, *entries: tuple[int, int, int, bytes]) -> bytes:
    """Build a TIFF structure, as EXIF is, of tags, their types, counts and values of 4 bytes.

    Args:
        order: "<" or ">".
        entries: in the order in which they are written.
    """
    head = b"II*\0\x08\0\0\0" if order == "<" else b"MM\0*\0\0\0\x08"
    fields = b"".join(struct.pack(f"{order}HHI", *entry[:3]) + entry[3] for entry in entries)
    # Behind the directory: what offsets point to.
    return head + struct.pack(f"{order}H", len(entries)) + fields + b"\0\0\0\0" + b"\0\0\0H" * 30


def turn_entry(order: str, orientation: int) -> tuple[int, int, int, bytes]:
    return (0x0112, 3, 1, struct.pack(f"{order}HH", orientation, 0))


def with_webp_chunk(webp: bytes, kind: bytes, content: bytes) -> bytes:
    """Append a chunk to a WebP that begins with a VP8X header."""
    padded = content + b"\0" * (len(content) % 2)
    body = webp[8:] + kind + struct.pack("<I", len(content)) + padded
    return b"RIFF" + struct.pack("<I", len(body)) + body


def turned(image: Image.Image, orientation: int) -> Image.Image:
    turn = STORED[orientation]
    return image if turn is None else image.transpose(turn)


def flipped(data: bytes, offset: int) -> bytes:
    return data[:offset] + bytes([data[offset] ^ 16]) + data[offset + 1 :]


def mutated(rng: random.Random, files: list[bytes]) -> bytes:
    """Flip bits of a file, replace, remove and insert bytes, splice it with others, and cut it."""
    data = bytearray(rng.choice(files))
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        # Most of what a decoder believes is at the start.
        offset = rng.randrange(min(len(data), 400) if rng.random() < 0.6 else len(data))
        length = rng.choice([1, 2, 4, 16, 100])
        other = rng.choice(files)
        start = rng.randrange(len(other))
        match rng.randrange(7):
            case 0 | 1:
                data[offset] ^= 1 << rng.randrange(8)
            case 2:
                data[offset : offset + 4] = rng.choice(
                    [b"\xff" * 4, b"\0" * 4, b"\x7f" + b"\xff" * 3]
                )
            case 3:
                data[offset:offset] = rng.randbytes(length)
            case 4:
                data[offset : offset + rng.choice([0, length])] = other[start : start + 10 * length]
            case 5:
                del data[offset : offset + length]
            case _ if rng.random() < 0.2:
                del data[offset:]
        if not data:
            return b""
    return bytes(data)


def make_hole(path: Path) -> None:
    """Create a sparse file: no space on the disk, but 16 GB when read."""
    path.touch()
    os.truncate(path, 1 << 34)


def make_locked(path: Path) -> None:
    path.write_bytes(as_png(picture("locked")))
    path.chmod(0)


def spread(start: int, stop: int, count: int) -> list[int]:
    return [start + (stop - start) * number // count for number in range(count)]


# The expected pixels, computed without the decoder.


def grey(image: Image.Image) -> Image.Image:
    luma = (np.asarray(image) @ [0.299, 0.587, 0.114]).round().astype(np.uint8)
    return Image.fromarray(luma)


def expected_grey(image: Image.Image) -> Image.Image:
    return Image.merge("RGB", [grey(image)] * 3)


def white_corner(image: Image.Image) -> Image.Image:
    white = image.copy()
    white.paste("white", (0, 0, WIDTH // 2, HEIGHT // 2))
    return white


def white_grey_corner(image: Image.Image) -> Image.Image:
    return white_corner(expected_grey(image))


def alpha_channel() -> Image.Image:
    """Draw an alpha channel: first quarter transparent, second half transparent, rest opaque."""
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[: HEIGHT // 2, : WIDTH // 2] = 0
    alpha[: HEIGHT // 2, WIDTH // 2 :] = 128
    return Image.fromarray(alpha)


def with_alpha(image: Image.Image) -> Image.Image:
    layered = image.copy()
    layered.putalpha(alpha_channel())
    return layered


def expected_with_alpha(image: Image.Image) -> Image.Image:
    alpha = np.asarray(alpha_channel())[..., None] / 255
    return Image.fromarray((np.asarray(image) * alpha + 255 * (1 - alpha)).astype(np.uint8))


def four_bit_grey(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return the grey picture in 4 bits."""
    return np.asarray(grey(image)) // np.uint8(16)


def expected_four_bit_grey(image: Image.Image) -> Image.Image:
    return Image.merge("RGB", [Image.fromarray(four_bit_grey(image) * 17)] * 3)


def two_tones(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(grey(image)) > 127)


def as_cmyk(image: Image.Image) -> Image.Image:
    """Use a picture's colours as cyan, magenta and yellow, and add some black."""
    black = Image.new("L", image.size, 60)
    return Image.merge("CMYK", [*image.split(), black])


def expected_cmyk(image: Image.Image) -> Image.Image:
    paper = (255 - np.asarray(image, dtype=float)) * (255 - 60) / 255
    return Image.fromarray(paper.astype(np.uint8))


def without_adobe_marker(image: Image.Image) -> bytes:
    """Encode inverted CMYK, as Adobe does and decoders expect, without the Adobe marker."""
    jpeg = as_jpeg(as_cmyk(image))
    start = jpeg.index(b"\xff\xee")
    return jpeg[:start] + jpeg[start + 2 + int.from_bytes(jpeg[start + 2 : start + 4]) :]


def as_ycck(image: Image.Image) -> bytes:
    """Encode CMYK as Photoshop does: inverted, the first three as YCbCr."""
    ycc = [ImageOps.invert(band) for band in image.convert("YCbCr").split()]
    jpeg = as_jpeg(Image.merge("CMYK", [*ycc, Image.new("L", image.size, 60)]))
    transform = jpeg.index(b"Adobe") + 11
    return jpeg[:transform] + b"\2" + jpeg[transform + 1 :]
