"""Which type a file has, by bytes that tests draw or that a specification gives."""

from pathlib import Path

import pytest
from PIL import Image, features

from pipeline.image_types import (
    DECODABLE,
    EMPTY,
    NOT_A_FILE,
    SIGNATURE_LENGTH,
    UNKNOWN,
    identify,
    identify_file,
)
from tests.conftest import encoded, make_photo


def ftyp(*brands: bytes) -> bytes:
    """Build an ISO media file's first box; the first brand is the main one."""
    content = b"ftyp" + brands[0] + b"\0\0\0\0" + b"".join(brands[1:])
    return (len(content) + 4).to_bytes(4) + content + b"\0\0\0\x10metaavifheic" * 9


def little_endian_tiff(maker: bytes) -> bytes:
    return b"II*\0\x10\0\0\0" + maker + b"\0" * 50


EXAMPLES = {
    "a JPEG photo": [b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xdb"],
    "a PNG image": [b"\x89PNG\r\n\x1a\n\0"],
    "a WebP image": [b"RIFF\x0a\0\0\0WEBPVP8L"],
    "a HEIC photo": [
        ftyp(b"heic", b"mif1", b"MiHB", b"heic"),
        ftyp(b"mif1", b"heic"),
        ftyp(b"heix"),
        ftyp(b"msf1", b"hevc"),
    ],
    "a HEIF photo": [ftyp(b"mif1", b"miaf"), ftyp(b"msf1")],
    "an AVIF image": [ftyp(b"avif", b"mif1", b"miaf"), ftyp(b"mif1", b"avif"), ftyp(b"avis")],
    "a raw photo": [
        little_endian_tiff(b"CR\2\0"),
        ftyp(b"crx ", b"isom"),
        b"FUJIFILMCCD-RAW 0201",
        b"IIRO\x08\0\0\0",
        b"IIU\0\x18\0\0\0",
    ],
    "a TIFF image or raw photo": [little_endian_tiff(b""), b"MM\0*\0\0\0\x08", b"II+\0\x08\0\0\0"],
    "a JPEG XL image": [b"\xff\x0a\xfa\x7f", b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl "],
    "a JPEG 2000 image": [b"\xff\x4f\xff\x51\0/", b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 "],
    "a Photoshop file": [b"8BPS\0\1"],
    "a GIMP file": [b"gimp xcf v011\0"],
    "a PDF document": [b"%PDF-1.4\n"],
    "an SVG drawing": [
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- drawn -->\n<svg width="1">',
    ],
    "a video": [
        ftyp(b"isom", b"iso2", b"avc1", b"mp41"),
        ftyp(b"qt  "),
        b"\0\0\0\x08wide\0\0\0\0mdat",
        b"\x1aE\xdf\xa3\x01\0\0\0",
        b"RIFF\x24\0\0\0AVI LIST",
    ],
    "an archive": [b"PK\3\4\x14\0", b"\x1f\x8b\x08\0"],
    "an icon": [b"\0\0\1\0\1\0"],
    "a PNM image": [b"P6\n20 16\n255\n"],
    "a macOS metadata file": [b"\0\5\x16\7\0\2\0\0Mac OS X"],
    "a web page": [
        b"<!DOCTYPE html><title>404</title>",
        b"\n\n <HTML>",
        b'<?xml version="1.0"?><html xmlns="x">',
        b"\xef\xbb\xbf<html>",
    ],
    "a Git LFS pointer": [b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"],
    "a text file": [
        b"A dog runs.\n",
        b'{"error": "not found"}',
        "Ein Hund läuft.".encode(),
        "Ein Hund läuft.".encode("utf-16"),
        b"BM is no picture",
        b"outs:\n- md5: 00\n",
    ],
    "an unknown file": [b"\0" * 99, b"\xff", b"\xff\xd8", b"RIFF\x24\0\0\0WAVEfmt "],
    "an empty file": [b""],
}


@pytest.mark.parametrize(
    ("name", "data"), [(name, data) for name, examples in EXAMPLES.items() for data in examples]
)
def test_a_file_is_identified_by_its_first_bytes(name: str, data: bytes) -> None:
    assert identify(data[:SIGNATURE_LENGTH]).name == name


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("JPEG", "a JPEG photo"),
        ("MPO", "a JPEG photo"),
        ("PNG", "a PNG image"),
        ("WEBP", "a WebP image"),
        ("GIF", "a GIF image"),
        ("BMP", "a BMP image"),
        ("DIB", "an unknown file"),
        ("TIFF", "a TIFF image or raw photo"),
        ("PPM", "a PNM image"),
        ("ICO", "an icon"),
        ("AVIF", "an AVIF image"),
        ("JPEG2000", "a JPEG 2000 image"),
        ("PDF", "a PDF document"),
    ],
)
def test_what_pillow_writes_is_identified(kind: str, name: str) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow cannot write AVIF")
    assert identify(encoded(make_photo(32, 32), kind)[:SIGNATURE_LENGTH]).name == name


def test_only_types_that_are_decoded_need_no_fix() -> None:
    types = {file_type for data in EXAMPLES.values() for file_type in map(identify, data)}
    assert {file_type for file_type in types if not file_type.fix} == set(DECODABLE)
    assert {file_type for file_type in types if file_type.is_decodable} == set(DECODABLE)
    assert not {EMPTY, UNKNOWN, NOT_A_FILE} & set(DECODABLE)


def test_a_reason_names_the_type_and_the_fix() -> None:
    heic = identify(ftyp(b"heic"))
    assert heic.reason == (
        "a HEIC photo: convert to JPEG with heif-convert, sips (macOS) or magick"
    )
    assert heic.plural == "HEIC photos"
    assert identify(ftyp(b"avif")).plural == "AVIF images"


def test_text_that_ends_inside_a_character_is_text() -> None:
    text = ("ä" * SIGNATURE_LENGTH).encode()
    assert identify(b"x" + text[: SIGNATURE_LENGTH - 1]).name == "a text file"


def test_a_file_is_identified_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "photo.heic"
    path.write_bytes(encoded(Image.new("RGB", (8, 8)), "JPEG"))
    assert identify_file(path).is_decodable
    path.write_bytes(b"")
    assert identify_file(path) is EMPTY
    assert identify_file(tmp_path) is NOT_A_FILE
    with pytest.raises(FileNotFoundError):
        identify_file(tmp_path / "gone.jpg")
