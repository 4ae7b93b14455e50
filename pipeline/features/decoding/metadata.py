"""Metadata of photos: it is removed before they are decoded; only the orientation is read.

A photo's text, colour profile or EXIF may be as large or as damaged as it likes: whether the
photo can be decoded depends on its pixels. Pillow reads all metadata, and refuses some photos or
fails because of it. Sources: ITU-T T.81, annex B (JPEG); W3C, Portable Network Graphics, third
edition; RFC 9649 (WebP); CIPA DC-008 (EXIF, which is a TIFF 6.0 structure).
"""

import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pipeline.image_types import JPEG, PNG, SIGNATURE_LENGTH, WEBP, FileType, identify

# Files have some hundred parts, or some ten thousand if each holds 8 kB of pixels. A part takes a
# microsecond, so that the millions of empty ones that fit in a file would take minutes.
_MAX_PARTS = 1 << 18
# More than a text chunk with EXIF needs, and little enough to be decompressed.
_MAX_TEXT = 1 << 20

# Markers that a length follows, and those of the start and the end. The decoder skips all others:
# they are part of the pixels, or damage.
_JPEG_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd8-\xfe])")
_START, _END, _SCAN = 0xD8, 0xD9, 0xDA
_JFIF, _APP1, _ADOBE = 0xE0, 0xE1, 0xEE
_TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDD})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ONE_PASS_FRAMES = frozenset({0xC0, 0xC1, 0xC3, 0xC9, 0xCB})  # the others are progressive
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Colour type of palette photos; bytes of a transparent colour at least, by colour type.
_PNG_PALETTE, _PNG_TRANSPARENT = 3, {0: 2, 2: 6, 3: 1}
_PNG_XMP = b"XML:com.adobe.xmp"
_PNG_EXIF = (b"Raw profile type exif", b"Raw profile type APP1")  # ImageMagick's keywords

_WEBP_IMAGES = (b"VP8 ", b"VP8L", b"ANMF")  # lossy, lossless, a frame of an animation
_WEBP_ALPHA, _WEBP_ANIMATION = 0x10, 0x02  # flags

_ORIENTATION = 0x0112
_INTEGER_SIZES = {1: 1, 3: 2, 4: 4, 6: 1, 8: 2, 9: 4}  # bytes, by the number of the TIFF type
_XMP_ORIENTATION = re.compile(rb"""tiff:Orientation\s*(?:=\s*["']|>)\s*([1-8])""")


@dataclass(frozen=True)
class BarePhoto:
    """A photo's file without metadata.

    Attributes:
        data: the file with only those parts that decide the pixels of the first frame.
        width: in pixels, before the photo is turned.
        height: likewise.
        orientation: 1 to 8, as in EXIF.
        bytes_per_pixel: memory that the decoder needs beside the decoded image.
        scans: how many times the decoder passes over the pixels.
    """

    data: bytes
    width: int
    height: int
    orientation: int = 1
    bytes_per_pixel: int = 0
    scans: int = 1


class _Part(NamedTuple):
    """A part of a file.

    Attributes:
        kind: a JPEG marker, or the four letters of a PNG or WebP chunk.
        start: where its content starts.
        end: where its content ends.
    """

    kind: bytes
    start: int
    end: int


def remove_metadata(data: bytes) -> BarePhoto:
    """Copy the parts of a JPEG, PNG or WebP file that decide its pixels.

    Raises:
        ValueError: they are missing or damaged; the message says which.
    """
    return _READERS[identify(data[:SIGNATURE_LENGTH])](data)


# JPEG: each segment has a marker, a length that counts itself, and content.


def _read_jpeg(data: bytes) -> BarePhoto:
    header, scan = _split_jpeg(data)
    frame = next(((m, content) for m, content in header if m in _FRAMES), None)
    if scan is None or frame is None or len(frame[1]) < 6:  # noqa: PLR2004  (up to the components)
        raise ValueError("its pixels are missing")
    marker, size = frame
    components, first_components = size[5], data[scan.start]
    is_buffered = marker not in _ONE_PASS_FRAMES or first_components < components
    kept = [
        b"\xff" + bytes([m]) + (len(content) + 2).to_bytes(2) + content
        for m, content in header
        if _decides_pixels(m, content)
    ]
    # EXIF may be longer than a segment.
    exif = b"".join(c[len(_EXIF) :] for m, c in header if m == _APP1 and c.startswith(_EXIF))
    xmp = next((c for m, c in header if m == _APP1 and c.startswith(_XMP)), b"")
    return BarePhoto(
        b"".join([data[:2], *kept, memoryview(data)[scan.start - 4 :]]),
        width=int.from_bytes(size[3:5]),
        height=int.from_bytes(size[1:3]),
        orientation=_find_orientation(exif, xmp),
        bytes_per_pixel=2 * components if is_buffered else 0,  # 16-bit coefficients
        scans=_count_scans(data, scan.start - 4),
    )


def _split_jpeg(data: bytes) -> tuple[list[tuple[int, bytes]], _Part | None]:
    """Return the marker and content of each segment before the first scan, and that scan."""
    header: list[tuple[int, bytes]] = []
    for part in _jpeg_segments(data, 2):
        if part.kind[0] == _SCAN:
            return header, part if part.start < part.end else None
        header.append((part.kind[0], data[part.start : part.end]))
    return header, None


def _decides_pixels(marker: int, content: bytes) -> bool:
    """Whether libjpeg needs a segment: tables, size, and the two that name the colour space."""
    if marker == _JFIF:
        return content.startswith(b"JFIF\0") and len(content) >= 14  # noqa: PLR2004  (a length)
    if marker == _ADOBE:
        return content.startswith(b"Adobe") and len(content) >= 12  # noqa: PLR2004  (a length)
    return marker in _TABLES or marker in _FRAMES


def _jpeg_segments(data: bytes, offset: int) -> Iterator[_Part]:
    """Yield the segments up to the end marker; between them pixels and damage are skipped."""
    for _ in range(_MAX_PARTS):
        marker = _JPEG_MARKER.search(data, offset)
        if marker is None or marker[1][0] == _END:
            return
        offset = marker.end()
        if marker[1][0] != _START:
            start, offset = offset + 2, offset + max(2, int.from_bytes(data[offset : offset + 2]))
            if offset <= len(data):
                yield _Part(marker[1], start, offset)
    raise ValueError(f"more than {_MAX_PARTS} segments")


def _count_scans(data: bytes, offset: int) -> int:
    """Count scans as the decoder does: it skips what segments contain, and stops at the end."""
    marker = bytes([0xFF, _SCAN])
    if data.count(marker, offset) == 1:
        return 1
    return sum(part.kind[0] == _SCAN for part in _jpeg_segments(data, offset))


# PNG: each chunk has a length, four letters, content and a checksum.


def _read_png(data: bytes) -> BarePhoto:
    chunks = list(_png_chunks(data))
    header = next((chunk for chunk in chunks if chunk.kind == b"IHDR"), None)
    if header is None or header.end - header.start != 13:  # noqa: PLR2004  (a length)
        raise ValueError("its header is missing")
    pixels = [chunk for chunk in chunks if chunk.kind == b"IDAT"]
    for parts, subject in (([header], "its header does"), (pixels, "its pixels do")):
        if not all(_matches_checksum(data, part) for part in parts):
            raise ValueError(f"{subject} not match the checksum")
    merged = b"".join(memoryview(data)[chunk.start : chunk.end] for chunk in pixels)
    colours = [chunk for chunk in chunks if _decides_colours(data, header, chunk)]
    kept = [data[chunk.start - 8 : chunk.end + 4] for chunk in [header, *colours]]
    exif, xmp = _png_exif_and_xmp(data, chunks)
    # Pillow does not check the pixels' checksum. The end chunk may have been cut off.
    image = [len(merged).to_bytes(4), b"IDAT", merged, b"\0\0\0\0"]
    return BarePhoto(
        b"".join([_PNG_SIGNATURE, *kept, *image, b"\0\0\0\0IEND\xae\x42\x60\x82"]),
        width=int.from_bytes(data[header.start : header.start + 4]),
        height=int.from_bytes(data[header.start + 4 : header.start + 8]),
        orientation=_find_orientation(exif, xmp),
    )


def _png_chunks(data: bytes) -> Iterator[_Part]:
    """Yield the chunks before the end chunk. The last one may be cut off."""
    offset = len(_PNG_SIGNATURE)
    for _ in range(_MAX_PARTS):
        kind, start = data[offset + 4 : offset + 8], offset + 8
        if len(kind) < 4 or kind == b"IEND":  # noqa: PLR2004  (a length)
            return
        offset = start + int.from_bytes(data[offset : offset + 4]) + 4
        yield _Part(kind, start, min(offset - 4, len(data)))
    raise ValueError(f"more than {_MAX_PARTS} chunks")


def _matches_checksum(data: bytes, chunk: _Part) -> bool:
    checksum = data[chunk.end : chunk.end + 4]
    if len(checksum) < 4:  # noqa: PLR2004  (cut inside the checksum: the pixels are whole)
        return True
    return zlib.crc32(memoryview(data)[chunk.start - 4 : chunk.end]) == int.from_bytes(checksum)


def _decides_colours(data: bytes, header: _Part, chunk: _Part) -> bool:
    """Whether a chunk is a palette that is used, or a transparent colour that is whole.

    A palette is indispensable to the photos that use one. Transparency is not: as libpng does,
    it is dropped if it is damaged.
    """
    colour_type = data[header.start + 9]
    if chunk.kind == b"PLTE":
        return colour_type == _PNG_PALETTE
    if chunk.kind != b"tRNS" or colour_type not in _PNG_TRANSPARENT:
        return False
    is_whole = chunk.end - chunk.start >= _PNG_TRANSPARENT[colour_type]
    return is_whole and _matches_checksum(data, chunk)


def _png_exif_and_xmp(data: bytes, chunks: list[_Part]) -> tuple[bytes, bytes]:
    """Return the EXIF and XMP of a PNG, whose text chunks may contain either."""
    exif = next((data[c.start : c.end] for c in chunks if c.kind == b"eXIf"), b"")
    xmp, profile = b"", b""
    for chunk in chunks:
        if chunk.kind not in {b"tEXt", b"zTXt", b"iTXt"}:
            continue
        # At most one text of each keyword is decompressed.
        keyword = data[chunk.start : min(chunk.start + 80, chunk.end)].partition(b"\0")[0]
        if keyword == _PNG_XMP:
            xmp = xmp or _png_text(chunk.kind, data[chunk.start : chunk.end]) or b" "
        elif keyword in _PNG_EXIF:
            profile = profile or _png_text(chunk.kind, data[chunk.start : chunk.end]) or b" "
    return exif or _decode_raw_profile(profile), xmp


def _png_text(kind: bytes, content: bytes) -> bytes:
    """Return the text of a text chunk; empty if it cannot be decompressed."""
    text, is_compressed = content.partition(b"\0")[2], kind == b"zTXt"
    if kind == b"iTXt":  # flag, method, language, translated keyword
        is_compressed, text = text[:1] == b"\1", text[2:].split(b"\0", 2)[-1]
    elif is_compressed:  # method
        text = text[1:]
    if not is_compressed:
        return text
    try:
        return zlib.decompressobj().decompress(text, _MAX_TEXT)
    except zlib.error:
        return b""


def _decode_raw_profile(text: bytes) -> bytes:
    """Decode the bytes that ImageMagick writes as a line break, name, length and hex digits."""
    try:
        return bytes.fromhex(text.split(b"\n", 3)[-1].decode("ascii"))
    except ValueError:
        return b""


# WebP: each chunk has four letters, a length, content, and a byte of padding if that is odd.


def _read_webp(data: bytes) -> BarePhoto:
    chunks = list(_webp_chunks(data))
    size = next(filter(None, (_webp_size(data, chunk) for chunk in chunks)), None)
    image = next((i for i, chunk in enumerate(chunks) if chunk.kind in _WEBP_IMAGES), None)
    if size is None or image is None:
        raise ValueError("its pixels are missing")
    # Before the image of a VP8X file: that header, the alpha channel, or an animation's header.
    kept = [_bare_webp_chunk(data, chunk) for chunk in chunks[: image + 1]]
    content = b"WEBP" + b"".join(kept)
    exif, xmp = (
        next((data[chunk.start : chunk.end] for chunk in chunks if chunk.kind == kind), b"")
        for kind in (b"EXIF", b"XMP ")
    )
    return BarePhoto(
        b"RIFF" + len(content).to_bytes(4, "little") + content,
        *size,
        orientation=_find_orientation(exif, xmp),
        # Pillow's decoder keeps two canvases and a copy.
        bytes_per_pixel=12,
    )


def _webp_chunks(data: bytes) -> Iterator[_Part]:
    offset = 12
    for _ in range(_MAX_PARTS):
        start = offset + 8
        if start > len(data):
            return
        length = int.from_bytes(data[offset + 4 : start], "little")
        yield _Part(data[offset : offset + 4], start, min(start + length, len(data)))
        offset = start + length + length % 2
    raise ValueError(f"more than {_MAX_PARTS} chunks")


def _bare_webp_chunk(data: bytes, chunk: _Part) -> bytes:
    """Return a chunk with its header and padding, or nothing if it decides no pixels."""
    whole = data[chunk.start - 8 : chunk.end]
    if chunk.kind == b"VP8X":
        flags = whole[8:9] and bytes([whole[8] & (_WEBP_ALPHA | _WEBP_ANIMATION)])
        whole = whole[:8] + flags + whole[9:]
    elif chunk.kind not in {b"ALPH", b"ANIM", *_WEBP_IMAGES}:
        return b""
    return whole + b"\0" * (len(whole) % 2)


def _webp_size(data: bytes, chunk: _Part) -> tuple[int, int] | None:
    """Return the width and height if the chunk names those of the whole photo."""
    content = data[chunk.start : min(chunk.start + 10, chunk.end)]
    if chunk.kind == b"VP8X" and len(content) == 10:  # noqa: PLR2004  (a length)
        return 1 + int.from_bytes(content[4:7], "little"), 1 + int.from_bytes(content[7:], "little")
    if chunk.kind == b"VP8 " and content[3:6] == b"\x9d\x01\x2a":
        width, height = content[6:8], content[8:10]
        return int.from_bytes(width, "little") & 0x3FFF, int.from_bytes(height, "little") & 0x3FFF
    if chunk.kind == b"VP8L" and content[:1] == b"\x2f":
        bits = int.from_bytes(content[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return None


# Orientation.


def _find_orientation(exif: bytes, xmp: bytes) -> int:
    """Return the orientation of EXIF, or else of XMP; 1, upright, if neither has a valid one."""
    value = _exif_orientation(exif.removeprefix(_EXIF))
    if value is None:
        found = _XMP_ORIENTATION.search(xmp)
        value = int(found[1]) if found else 1
    return value if 1 <= value <= 8 else 1  # noqa: PLR2004  (the eight of EXIF)


def _exif_orientation(tiff: bytes) -> int | None:
    """Return the orientation in a TIFF structure's first directory, None if there is none.

    Nothing else is read, so nothing else can be wrong.
    """
    if not tiff.startswith((b"II*\0", b"MM\0*")):
        return None
    order: Literal["little", "big"] = "little" if tiff.startswith(b"II") else "big"

    def integer(offset: int, size: int) -> int:
        return int.from_bytes(tiff[offset : offset + size], order)

    directory = integer(4, 4)
    for number in range(integer(directory, 2)):
        entry = directory + 2 + 12 * number  # tag, type, count, value
        if entry + 12 > len(tiff):
            return None
        if integer(entry, 2) == _ORIENTATION and integer(entry + 4, 4) == 1:
            return integer(entry + 8, _INTEGER_SIZES.get(integer(entry + 2, 2), 0))
    return None


_READERS: Mapping[FileType, Callable[[bytes], BarePhoto]] = {
    JPEG: _read_jpeg,
    PNG: _read_png,
    WEBP: _read_webp,
}
