"""Metadata: whatever it holds, the pixels are decoded and turned as the photo was taken."""

import io
import random
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pipeline.features.decoding.metadata import remove_metadata
from pipeline.features.decoding.photos import PhotoError, decode_photo
from tests.conftest import encoded, make_photo
from tests.support.photo_parts import (
    as_jpeg,
    as_png,
    as_webp,
    chunk,
    picture,
    png_of,
    tiff,
    turn_entry,
    turned,
    with_segment,
    with_webp_chunk,
)

SIZE = 24
MAX_PIXELS = 1_000_000
PICTURE = picture("metadata")
LARGE = bytes(range(256)) * 12_000  # 3 MB
ENCODERS = {"JPEG": as_jpeg, "PNG": as_png, "WEBP": as_webp}


def pixels(data: bytes) -> npt.NDArray[np.uint8]:
    decoded: npt.NDArray[np.uint8] = decode_photo(data, SIZE, MAX_PIXELS)[0]
    return decoded


def assert_same(data: bytes, plain: bytes) -> None:
    assert np.array_equal(pixels(data), pixels(plain))


# What each format may hold beside its pixels.

PNG_CHUNKS = {
    "3 MB of text": chunk(b"tEXt", b"Comment\0" + LARGE),
    "3 MB of compressed text": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(LARGE)),
    "3 MB of compressed UTF-8": chunk(b"iTXt", b"c\0\1\0\0\0" + zlib.compress(LARGE)),
    "text that is not UTF-8": chunk(b"iTXt", b"c\0\0\0en\0\xff\0\xff\xfe"),
    "text without a keyword": chunk(b"tEXt", b""),
    "compressed text that is cut": chunk(b"zTXt", b"c\0\0" + zlib.compress(LARGE)[:99]),
    "unknown compression": chunk(b"zTXt", b"c\0\x09rubbish"),
    "3 MB of ICC": chunk(b"iCCP", b"icc\0\0" + zlib.compress(LARGE)),
    "ICC with unknown compression": chunk(b"iCCP", b"icc\0\x07rubbish"),
    "empty ICC": chunk(b"iCCP", b""),
    "EXIF without hexadecimal digits": chunk(b"tEXt", b"Raw profile type exif\0\nexif\n  9\nzz"),
    "EXIF with half a digit": chunk(b"tEXt", b"Raw profile type exif\0\nexif\n  9\n0"),
    "EXIF of one word": chunk(b"tEXt", b"Raw profile type exif\0exif"),
    "EXIF of rubbish": chunk(b"eXIf", b"rubbish"),
    "no EXIF": chunk(b"eXIf", b""),
    "short resolution": chunk(b"pHYs", b"\0"),
    "short gamma": chunk(b"gAMA", b"\0"),
    "short chromaticity": chunk(b"cHRM", b"\0\1\2"),
    "short background": chunk(b"bKGD", b""),
    "short intent": chunk(b"sRGB", b""),
    "an animation of no frames": chunk(b"acTL", b"\0" * 8),
    "a short animation header": chunk(b"acTL", b"\0"),
    "a frame beyond the photo": chunk(b"acTL", b"\0\0\0\2\0\0\0\0")
    + chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 999, 999, 9, 9, 1, 1, 0, 0)),
    "a short frame": chunk(b"acTL", b"\0\0\0\2\0\0\0\0") + chunk(b"fdAT", b"\0"),
    "an unknown chunk": chunk(b"prVt", LARGE),
    "an unknown critical chunk": chunk(b"PRVT", b"x"),
    "a wrong checksum": chunk(b"tEXt", b"c\0text")[:-1] + b"\0",
    "a palette that nobody needs": chunk(b"PLTE", b"\0" * 12),
    "a damaged palette that nobody needs": chunk(b"PLTE", b"\0" * 12)[:-1] + b"x",
    "no transparent colour": chunk(b"tRNS", b""),
    "half a transparent colour": chunk(b"tRNS", b"\0\1"),
    "a damaged transparent colour": chunk(b"tRNS", b"\0" * 6)[:-1] + b"x",
}


@pytest.mark.parametrize("name", PNG_CHUNKS)
def test_a_png_is_decoded_whatever_stands_beside_its_pixels(name: str) -> None:
    plain = as_png(PICTURE)
    before = png_of(np.asarray(PICTURE), 8, 2, PNG_CHUNKS[name])
    behind = plain[:-12] + PNG_CHUNKS[name] + plain[-12:]
    assert_same(before, plain)
    assert_same(behind, plain)


JPEG_SEGMENTS = {
    "a long comment": (0xFE, b"c" * 65_000),
    "an empty comment": (0xFE, b""),
    "a short JFIF": (0xE0, b"JFIF\0"),
    "an empty APP0": (0xE0, b""),
    "a JFXX thumbnail": (0xE0, b"JFXX\0\x13rubbish"),
    "an XMP of rubbish": (0xE1, b"http://ns.adobe.com/xap/1.0/\0\xff\xfe<x"),
    "a continued XMP": (0xE1, b"http://ns.adobe.com/xmp/extension/\0" + b"x" * 999),
    "an ICC without number": (0xE2, b"ICC_PROFILE\0"),
    "an ICC 0 of 0": (0xE2, b"ICC_PROFILE\0\0\0x"),
    "an MPF without directory": (0xE2, b"MPF\0II*\0\xff\xff\xff\xff"),
    "an MPF with odd types": (0xE2, b"MPF\0" + tiff("<", (0xB001, 2, 1, b"x\0\0\0"))),
    "an MPF of a billion": (0xE2, b"MPF\0" + tiff("<", (0xB001, 4, 1, b"\xff\xff\xff\x3f"))),
    "a FlashPix": (0xE2, b"FPXR\0rubbish"),
    "Photoshop's resources": (0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\2xx"),
    "Photoshop's, without a name": (0xED, b"Photoshop 3.0\x008BIM\x03\xed"),
    "a short Adobe": (0xEE, b"Adobe\0"),
    "Ducky": (0xEC, b"Ducky\0\1\0\4"),
    "C2PA": (0xEB, b"JP\0\1rubbish"),
    "an APP15": (0xEF, b"\xff\xd9\xff\xda\xff"),
}


@pytest.mark.parametrize("name", JPEG_SEGMENTS)
def test_a_jpeg_is_decoded_whatever_stands_beside_its_pixels(name: str) -> None:
    plain = as_jpeg(PICTURE)
    assert_same(with_segment(plain, *JPEG_SEGMENTS[name]), plain)
    behind_tables = plain.index(b"\xff\xda")
    segment = with_segment(b"\xff\xd8", *JPEG_SEGMENTS[name])[2:]
    assert_same(plain[:behind_tables] + segment + plain[behind_tables:], plain)


def test_a_jpeg_is_decoded_with_damage_between_its_segments() -> None:
    plain = as_jpeg(PICTURE)
    assert_same(plain[:2] + b"\xff\xff\xff" + plain[2:], plain)
    start = plain.index(b"\xff\xdb")
    assert_same(plain[:start] + b"damage" + plain[start:], plain)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (b"ICCP", b"rubbish"),
        (b"EXIF", b"rubbish"),
        (b"EXIF", b""),
        (b"XMP ", b"\xff<x"),
        (b"prVt", LARGE),
    ],
)
@pytest.mark.parametrize("lossless", [False, True])
def test_a_webp_is_decoded_whatever_stands_beside_its_pixels(
    kind: bytes, content: bytes, lossless: bool
) -> None:
    plain = encoded(PICTURE, "WEBP", lossless=lossless, exif=tiff("<"))
    assert plain[12:16] == b"VP8X"
    with_metadata = with_webp_chunk(plain, kind, content)
    assert_same(with_metadata, plain)
    assert_same(with_metadata[:-1], plain)  # cut inside the last chunk
    assert_same(with_metadata + b"<html>" * 9, plain)


def test_a_webp_animation_is_decoded_though_its_later_frames_are_cut() -> None:
    frames = [PICTURE.rotate(90), PICTURE.rotate(180)]
    data = encoded(PICTURE, "WEBP", lossless=True, save_all=True, append_images=frames)
    assert_same(data[:-9], as_webp(PICTURE))


# Orientation.


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ENCODERS)
def test_a_photo_is_turned_by_any_exif_with_an_orientation(
    orientation: int, order: str, kind: str
) -> None:
    stored = turned(PICTURE, orientation)
    for entry in (
        turn_entry(order, orientation),
        (0x0112, 4, 1, struct.pack(f"{order}I", orientation)),
        (0x0112, 1, 1, bytes([orientation, 0, 0, 0])),
    ):
        data = encoded(
            stored, kind, exif=b"Exif\0\0" + tiff(order, entry), lossless=True, quality=95
        )
        difference = np.abs(pixels(data).astype(int) - pixels(as_png(PICTURE)))
        assert difference.max() <= (0 if kind != "JPEG" else 40)
        assert difference.mean() < 3


def test_a_png_is_turned_by_the_exif_and_xmp_in_its_texts() -> None:
    exif = tiff(">", turn_entry(">", 6))
    xmp = b'<x tiff:Orientation="6"/>'
    digits = b"\nexif\n  %d\n" % len(exif) + exif.hex("\n", 36).encode()
    for extra in (
        chunk(b"eXIf", exif),
        chunk(b"tEXt", b"Raw profile type exif\0" + digits),
        chunk(b"zTXt", b"Raw profile type APP1\0\0" + zlib.compress(digits)),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp)),
    ):
        stored = png_of(np.asarray(turned(PICTURE, 6)), 8, 2, extra)
        assert_same(stored, as_png(PICTURE))


def test_a_webp_is_turned_by_its_xmp() -> None:
    stored = encoded(turned(PICTURE, 6), "WEBP", lossless=True, exif=tiff("<"))
    element = b"<tiff:Orientation>6</tiff:Orientation>"
    assert_same(with_webp_chunk(stored, b"XMP ", element), as_webp(PICTURE))


def test_exif_decides_before_xmp() -> None:
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation='3'/>"
    exif = b"Exif\0\0" + tiff("<", turn_entry("<", 6))
    stored = with_segment(as_jpeg(turned(PICTURE, 6)), 0xE1, xmp)
    assert remove_metadata(stored).orientation == 3
    assert remove_metadata(with_segment(stored, 0xE1, exif)).orientation == 6


TAGS = (0x10E, 0x10F, 0x110, 0x11A, 0x128, 0x131, 0x132, 0x13B, 0x213, 0x8298, 0x8769, 0x8825,
        0xA005, 0x9C9B, 0x4746)  # fmt: skip


@pytest.mark.parametrize("tag", TAGS, ids=hex)
def test_a_tag_of_any_type_beside_the_orientation_changes_nothing(tag: int) -> None:
    stored = turned(PICTURE, 6)
    upright = pixels(as_png(PICTURE))
    for kind in (*range(16), 99, 0xFFFF):
        for value in (
            b"\0\0\0\0",
            b"\1\0\0\0",
            b"\xff\xff\xff\xff",
            b"\0\0\xc0\x7f",
            b"\x26\0\0\0",
        ):
            entries = sorted([(tag, kind, 1, value), turn_entry("<", 6)])
            data = png_of(np.asarray(stored), 8, 2, chunk(b"eXIf", tiff("<", *entries)))
            assert np.array_equal(pixels(data), upright)


def random_exif(rng: random.Random) -> bytes:
    """Build EXIF with an orientation among tags of any type, count and value."""
    order = rng.choice("<>")
    entries: list[tuple[int, int, int, bytes]] = [turn_entry(order, rng.randint(2, 8))]
    for _ in range(rng.randint(0, 5)):
        tag = rng.choice([*TAGS, 0x112, rng.randrange(1 << 16)])
        kind = rng.choice([*range(14), 99])
        count = rng.choice([0, 1, 1, 1, 2, 4, 8, 1000, 0xFFFFFFFF])
        value = rng.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x1e\0\0\0", rng.randbytes(4)])
        entries.insert(rng.randint(0, len(entries)), (tag, kind, count, value))
    data = bytearray(tiff(order, *entries))
    for _ in range(rng.choice([0, 0, 1, 3])):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data[: rng.choice([None, None, rng.randrange(len(data))])])


@pytest.mark.parametrize(
    "count", [200, pytest.param(15_000, marks=pytest.mark.soak)], ids=["few", "many"]
)
def test_photos_with_any_exif_are_decoded_and_only_turned(count: int) -> None:
    rng = random.Random(7)
    image = make_photo(24, 24)  # turning and stretching it gives the same pixels
    samples = np.asarray(image)
    plain = as_jpeg(image)
    decoded = {kind: pixels(data) for kind, data in (("jpg", plain), ("png", as_png(image)))}
    turns = {
        kind: {variant.tobytes() for variant in _variants(array)} for kind, array in decoded.items()
    }
    for _ in range(count):
        exif = random_exif(rng)
        jpeg = with_segment(plain, 0xE1, b"Exif\0\0" + exif)
        png = png_of(samples, 8, 2, chunk(b"eXIf", exif))
        assert pixels(jpeg).tobytes() in turns["jpg"]
        assert pixels(png).tobytes() in turns["png"]


def _variants(array: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
    quarters = [np.rot90(array, number) for number in range(4)]
    return [variant for quarter in quarters for variant in (quarter, quarter[:, ::-1])]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_pillow_reads_the_same_orientation_where_it_reads_one() -> None:
    rng = random.Random(11)
    compared = 0
    for _ in range(300):
        exif = random_exif(rng)
        tags = Image.Exif()
        try:
            tags.load(b"Exif\0\0" + exif)
            expected = tags.get(0x0112)
        except (SyntaxError, ValueError, TypeError, struct.error):
            continue
        entries = exif.count(b"\x01\x12") + exif.count(b"\x12\x01")
        if isinstance(expected, int) and expected in range(2, 9) and entries == 1:
            data = with_segment(as_jpeg(PICTURE), 0xE1, b"Exif\0\0" + exif)
            assert remove_metadata(data).orientation == expected
            compared += 1
    assert compared > 60


# A JPEG without its end.


JPEG_KINDS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "with restarts": {"restart_marker_blocks": 3},
    "subsampled": {"subsampling": 2},
    "optimized": {"optimize": True},
}


@pytest.mark.parametrize("kind", JPEG_KINDS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_without_its_end_marker_is_decoded(kind: str, mode: str) -> None:
    data = encoded(make_photo(200, 120).convert(mode), "JPEG", quality=90, **JPEG_KINDS[kind])
    for cut in (1, 2):
        assert_same(data[:-cut], data)
    assert_same(data[:-2] + b"appended by a phone", data)


@pytest.mark.parametrize("kind", JPEG_KINDS)
def test_a_jpeg_whose_pixels_are_missing_is_refused(kind: str) -> None:
    data = encoded(make_photo(200, 120), "JPEG", quality=90, **JPEG_KINDS[kind])
    start = data.rindex(b"\xff\xda") + 20
    for end in range(start, len(data) - 8, max(1, (len(data) - start) // 60)):
        with pytest.raises(PhotoError, match="damaged image: image file is truncated"):
            pixels(data[:end])


def test_a_png_without_its_end_is_decoded() -> None:
    data = as_png(PICTURE)
    for cut in range(1, 21):  # the end chunk, the checksum of the pixels, and that of zlib
        assert_same(data[:-cut], data)
    for cut in (30, len(data) // 2):
        with pytest.raises(PhotoError, match="damaged image: "):
            pixels(as_png(make_photo(200, 120))[:-cut])


def test_a_webp_without_its_padding_is_decoded() -> None:
    for side in range(8, 40):
        data = as_webp(make_photo(side, side))
        if len(data) % 2 == 0 and int.from_bytes(data[16:20], "little") % 2:
            assert_same(data[:-1], data)
            return
    pytest.fail("no WebP of an odd length was drawn")


# Scans and other costs.


def progressive(side: int) -> bytes:
    return encoded(Image.new("L", (side, side), 90), "JPEG", progressive=True)


def segment(marker: int, content: bytes) -> bytes:
    return with_segment(b"\xff\xd8", marker, content)[2:]


@pytest.mark.parametrize(
    "trap",
    [
        b"",
        b"\xff\x02\xff\xff\xd0",  # a marker without a length, which the decoder skips
        b"\xff\x01\xff\xff",
        b"\xff\xbf\xff\xff",
        b"\xff\xff\xff\xd7\xff\xff",
        segment(0xFE, b"\xff\xd9"),  # an end marker in a comment
        segment(0xE1, b"\xff\xd9" * 9),
        b"\xff\xe0\0\0",  # a length shorter than itself
        b"\xff\xd8",
    ],
    ids=lambda trap: trap[:4].hex(),
)
def test_scans_are_counted_as_the_decoder_counts_them(trap: bytes) -> None:
    jpeg = progressive(64)
    last = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    assert remove_metadata(jpeg).scans == jpeg.count(b"\xff\xda") > 1
    data = jpeg[:-2] + (trap + last) * 200 + jpeg[-2:]
    assert remove_metadata(data).scans == jpeg.count(b"\xff\xda") + 200
    with pytest.raises(PhotoError, match="more than 100 scans"):
        pixels(data)


def test_large_photos_may_have_fewer_scans() -> None:
    jpeg = progressive(9_000)  # 81 megapixels
    last = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    many = jpeg[:-2] + 20 * last + jpeg[-2:]
    with pytest.raises(PhotoError, match="damaged image: more than 24 scans"):
        decode_photo(many, SIZE, 100_000_000)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + segment(0xFE, b"") * 400_000 + as_jpeg(PICTURE)[2:],
        as_png(PICTURE)[:33] + chunk(b"tEXt", b"") * 400_000 + as_png(PICTURE)[33:],
        as_webp(PICTURE)[:12] + b"prVt\0\0\0\0" * 400_000 + as_webp(PICTURE)[12:],
    ],
    ids=ENCODERS,
)
def test_a_file_of_very_many_parts_is_refused(data: bytes) -> None:
    with pytest.raises(PhotoError, match="damaged image: more than 262144 "):
        pixels(data)


def test_a_long_run_of_fill_bytes_takes_no_time() -> None:
    jpeg = as_jpeg(PICTURE)
    assert_same(jpeg[:2] + b"\xff" * 3_000_000 + jpeg[2:], jpeg)
    remove_metadata(jpeg[:-2] + (b"\xff" * 500_000 + b"\0\xff\xda") * 3 + jpeg[-2:])


@pytest.mark.parametrize("kind", ENCODERS)
def test_the_pixels_size_is_read_from_the_header(kind: str) -> None:
    for options in ({}, {"exif": tiff("<")}):
        bare = remove_metadata(encoded(make_photo(200, 120), kind, **options))
        assert (bare.width, bare.height) == (200, 120)
        with Image.open(io.BytesIO(bare.data)) as image:
            assert image.size == (200, 120)
            assert not image.getexif()
