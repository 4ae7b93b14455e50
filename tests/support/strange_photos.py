"""A data set of damaged and odd photo files, with the expected result for each.

`python -m tests.support.strange_photos FOLDER` writes it, to inspect or caption it by hand.
"""

import os
import stat
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from tests.conftest import encoded, make_photo
from tests.support.photo_parts import (
    HEIGHT,
    STORED,
    WIDTH,
    Array,
    Turn,
    alpha_channel,
    as_cmyk,
    as_jpeg,
    as_png,
    as_webp,
    as_ycck,
    chunk,
    corners,
    exif,
    expected_cmyk,
    expected_four_bit_grey,
    expected_grey,
    expected_with_alpha,
    flipped,
    four_bit_grey,
    grey,
    make_hole,
    make_locked,
    picture,
    png,
    png_of,
    spread,
    transparent,
    turned,
    two_tones,
    white_corner,
    white_grey_corner,
    wide,
    with_alpha,
    with_frame,
    with_segment,
    without_adobe_marker,
)

MAX_PIXELS = 100_000_000
DAMAGED = "damaged image: "
NO_PHOTO = "an unknown file: only JPEG, PNG and WebP photos are decoded$"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
OUTSIDE = "a link to a file outside the photo folder$"

# Names in a caption file that lead out of the photo folder, and names of no photo.
UNSAFE = (
    "../secret.png",
    "./../secret.png",
    "../images/plain.png",
    "deep/../../secret.png",
    "..",
    "/etc/hostname",
    "C:\\secret.png",
    "C:secret.png",
    "..\\secret.png",
    "deep\\plain.png",
    "plain\0.png",
)
NOT_THERE = ("secret.png", "~/secret.png", "file:///secret.png")
REPAIRED = ("images/plain.png", "PLAIN.png")  # other spellings of plain.png


@dataclass(frozen=True)
class StrangePhoto:
    """A file of the photo folder and the expected result.

    Attributes:
        name: path below the photo folder.
        content: the file's bytes, or a function that creates it at a path.
        corners: the expected colours of the four corners, (4, 3); None if they are not checked.
        tolerance: by how much the colours may differ.
        reason: regular expression of the reason why it fails; empty if it is a row.
        may_go_unnoticed: whether it may also be a row, as its format cannot detect the damage.
    """

    name: str
    content: bytes | Callable[[Path], object]
    corners: Array | None = None
    tolerance: int = 0
    reason: str = ""
    may_go_unnoticed: bool = False

    @property
    def image_id(self) -> str:
        name = os.fsencode(self.name.replace("\\", "\\\\"))
        return name.decode("utf-8", errors="backslashreplace")

    def write(self, folder: Path) -> None:
        path = folder / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(self.content, bytes):
            path.write_bytes(self.content)
        else:
            self.content(path)


def row(
    name: str,
    encode: Callable[[Image.Image], bytes],
    shown: Callable[[Image.Image], Image.Image] = lambda image: image,
    tolerance: int = 0,
) -> StrangePhoto:
    """Encode the picture of that name; it must look like the result of `shown`."""
    image = picture(name)
    return StrangePhoto(name, encode(image), corners(shown(image)), tolerance)


# The corpus.


def corpus() -> list[StrangePhoto]:
    return [
        *_formats(),
        *_colours(),
        *_with_alpha_channel(),
        *_with_transparent_colour(),
        *_frames_and_turns(),
        *_odd_metadata(),
        *_shapes(),
        *_names(),
        *_no_photos(),
        *_damaged(),
        *_bombs(),
        *_links(),
        *_no_files(),
    ]


def _formats() -> Iterator[StrangePhoto]:
    yield row("plain.png", as_png)
    yield row("plain.jpg", as_jpeg, tolerance=6)
    yield row("plain.webp", as_webp)
    yield row("lossy.webp", lambda image: encoded(image, "WEBP", quality=95), tolerance=12)
    yield row("coarse.jpg", lambda image: encoded(image, "JPEG", quality=50), tolerance=12)
    yield row("progressive.jpg", lambda image: as_jpeg(image, progressive=True), tolerance=6)
    yield row("not transformed.jpg", lambda image: as_jpeg(image, keep_rgb=True), tolerance=6)
    yield row("a PNG.jpg", as_png)
    yield row("a WebP.jpeg", as_webp)
    yield row("a JPEG.png", as_jpeg, tolerance=6)
    yield row("a JPEG.webp", as_jpeg, tolerance=6)
    yield row("LOUD.JPG", as_jpeg, tolerance=6)
    yield row("deep/er/plain.png", as_png)


def _colours() -> Iterator[StrangePhoto]:
    yield row("grey.jpg", lambda image: as_jpeg(grey(image)), expected_grey, tolerance=6)
    yield row("grey.png", lambda image: as_png(grey(image)), expected_grey)
    yield row(
        "grey 4 bits.png", lambda image: png_of(four_bit_grey(image), 4, 0), expected_four_bit_grey
    )
    yield row("grey 16 bits.png", lambda image: png_of(wide(grey(image)), 16, 0), expected_grey)
    yield row("16 bits.png", lambda image: png_of(wide(image), 16, 2))
    yield row(
        "1 bit.png",
        lambda image: as_png(two_tones(image)),
        lambda image: two_tones(image).convert("RGB"),
    )
    yield row("palette.png", lambda image: as_png(image.quantize(4)))
    yield row(
        "CMYK, Adobe's.jpg", lambda image: as_jpeg(as_cmyk(image)), expected_cmyk, tolerance=6
    )
    yield row("CMYK.jpg", without_adobe_marker, expected_cmyk, tolerance=6)
    yield row("YCCK.jpg", as_ycck, expected_cmyk, tolerance=6)


def _with_alpha_channel() -> Iterator[StrangePhoto]:
    def grey_with_alpha(image: Image.Image) -> Image.Image:
        return Image.merge("LA", [grey(image), alpha_channel()])

    def wide_with_alpha(image: Image.Image) -> npt.NDArray[np.uint16]:
        return np.asarray(with_alpha(image)).astype(np.uint16) * 257

    def expected_grey_with_alpha(image: Image.Image) -> Image.Image:
        return expected_with_alpha(expected_grey(image))

    yield row("RGBA.png", lambda image: as_png(with_alpha(image)), expected_with_alpha, tolerance=1)
    yield row(
        "RGBA.webp", lambda image: as_webp(with_alpha(image)), expected_with_alpha, tolerance=1
    )
    yield row(
        "LA.png",
        lambda image: as_png(grey_with_alpha(image)),
        expected_grey_with_alpha,
        tolerance=1,
    )
    yield row(
        "RGBA 16 bits.png",
        lambda image: png_of(wide_with_alpha(image), 16, 6),
        expected_with_alpha,
        tolerance=1,
    )
    yield row(
        "LA 16 bits.png",
        lambda image: png_of(np.asarray(grey_with_alpha(image)).astype(np.uint16) * 257, 16, 4),
        expected_grey_with_alpha,
        tolerance=1,
    )


def _with_transparent_colour() -> Iterator[StrangePhoto]:
    def palette(image: Image.Image, **options: object) -> bytes:
        return encoded(image.quantize(4), "PNG", **options)

    def first(image: Image.Image) -> int:
        return int(np.asarray(image.quantize(4))[0, 0])

    def table(image: Image.Image) -> bytes:
        return bytes(1 if index == first(image) else 255 for index in range(4))

    def with_one(samples: npt.NDArray[np.integer], depth: int, kind: int) -> bytes:
        colour = transparent(*np.ravel(samples[0, 0]).tolist())
        return png_of(samples, depth, kind, colour)

    yield row(
        "palette, one clear.png",
        lambda image: palette(image, transparency=first(image)),
        white_corner,
    )
    yield row(
        "palette, one nearly clear.png",
        lambda image: palette(image, transparency=table(image)),
        white_corner,
        tolerance=1,
    )
    yield row(
        "grey, one clear.png",
        lambda image: with_one(np.asarray(grey(image)), 8, 0),
        white_grey_corner,
    )
    yield row(
        "grey 4 bits, one clear.png",
        lambda image: with_one(four_bit_grey(image), 4, 0),
        lambda image: white_corner(expected_four_bit_grey(image)),
    )
    yield row(
        "grey 16 bits, one clear.png",
        lambda image: with_one(wide(grey(image)), 16, 0),
        white_grey_corner,
    )
    yield row("RGB, one clear.png", lambda image: with_one(np.asarray(image), 8, 2), white_corner)
    yield row(
        "RGB 16 bits, one clear.png", lambda image: with_one(wide(image), 16, 2), white_corner
    )


def _frames_and_turns() -> Iterator[StrangePhoto]:
    def frames(image: Image.Image, kind: str, **options: object) -> bytes:
        more = [ImageOps.invert(image), image.transpose(Turn.ROTATE_180)]
        return encoded(image, kind, save_all=True, append_images=more, **options)

    yield row("animated.webp", lambda image: frames(image, "WEBP", lossless=True))
    yield row("animated.png", lambda image: frames(image, "PNG"))
    yield row("with a cover.png", lambda image: frames(image, "PNG", default_image=True))
    yield row("two pictures.jpg", lambda image: frames(image, "MPO", quality=95), tolerance=12)

    def held(image: Image.Image, number: int) -> bytes:
        return as_jpeg(turned(image, number), exif=exif(number))

    for number in STORED:
        yield row(f"orientation {number}.jpg", partial(held, number=number), tolerance=6)
    yield row("orientation.png", lambda image: encoded(turned(image, 6), "PNG", exif=exif(6)))
    yield row("orientation.webp", lambda image: as_webp(turned(image, 8), exif=exif(8)))
    yield row(
        "orientation in XMP.jpg",
        lambda image: with_segment(
            as_jpeg(turned(image, 6)),
            0xE1,
            b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>',
        ),
        tolerance=6,
    )


def _odd_metadata() -> Iterator[StrangePhoto]:
    def with_rubbish(image: Image.Image, marker: int, content: bytes) -> bytes:
        return with_segment(as_jpeg(image), marker, content)

    for name, marker, content in (
        ("EXIF of nothing", 0xE1, b"Exif\0\0"),
        ("EXIF of rubbish", 0xE1, b"Exif\0\0" + b"rubbish" * 9),
        ("EXIF cut off", 0xE1, exif(1).tobytes()[:40]),
        ("EXIF beyond its end", 0xE1, b"Exif\0\0II*\0\xff\xff\xff\x7f"),
        ("no such orientation", 0xE1, exif(77).tobytes()),
        ("ICC of rubbish", 0xE2, b"ICC_PROFILE\0\1\1rubbish"),
        ("ICC, one of five", 0xE2, b"ICC_PROFILE\0\1\5" + b"\0" * 200),
        ("MPF of rubbish", 0xE2, b"MPF\0rubbish"),
    ):
        encode = partial(with_rubbish, marker=marker, content=content)
        yield row(f"{name}.jpg", encode, tolerance=6)
    yield row(
        "ICC of rubbish.png",
        lambda image: png_of(np.asarray(image), 8, 2, chunk(b"iCCP", b"x\0\0rubbish")),
    )
    yield row("rubbish behind.jpg", lambda image: as_jpeg(image) + b"<html>" * 99, tolerance=6)
    yield row("rubbish behind.png", lambda image: as_png(image) + b"<html>" * 99)
    yield row(  # its bytes look like scans of a JPEG
        "film behind.jpg",
        lambda image: as_jpeg(image) + b"ftypmp42" + b"\xff\xda" * 500,
        tolerance=6,
    )


def _shapes() -> Iterator[StrangePhoto]:
    def small(image: Image.Image, size: tuple[int, int]) -> Image.Image:
        return image.crop((0, 0, 1, 1)).resize(size)

    def small_png(image: Image.Image, size: tuple[int, int]) -> bytes:
        return as_png(small(image, size))

    def small_jpeg(image: Image.Image, size: tuple[int, int]) -> bytes:
        return as_jpeg(small(image, size))

    for size in ((1, 1), (1, 10_000), (10_000, 1)):
        name, shown = f"{size[0]} x {size[1]}", partial(small, size=size)
        yield row(f"{name}.png", partial(small_png, size=size), shown)
        yield row(f"{name}.jpg", partial(small_jpeg, size=size), shown, tolerance=6)


def _names() -> Iterator[StrangePhoto]:
    names = [
        "with  spaces .png",
        "caf\u00e9, composed.png",
        "cafe\u0301, decomposed.png",
        "\u732b \U0001f408.png",
        "\u202egnp.sdrawkcab.png",
        "line\nbreak.png",
        "carriage\rreturn.png",
        "tab\tulator.png",
        "\x1b[31mred.png",
        "-rf.png",
        "--help.png",
        "'quotes\".png",
        "$(date) %s {0} *?.png",
        "<img src=x onerror=alert(1)>.png",
        "back\\slash.png",
        "photo.jpg.1.png",
        "#0.png",
        "n" * 251 + ".png",
        "\u00e9" * 125 + "x.png",
    ]
    if sys.platform == "linux":  # other systems refuse names that are not UTF-8
        names += [
            "caf\u00e9.png",
            "cafe\u0301.png",
            os.fsdecode(b"caf\xe9.png"),
            "caf\\xe9.png",  # how the previous name is displayed
            os.fsdecode(b"\xff\xfe\\\xfd.png"),
            os.fsdecode(b"folder \xff/photo.png"),
        ]
    for name in names:
        yield row(name, as_png)


def _no_photos() -> Iterator[StrangePhoto]:
    yield StrangePhoto("empty.jpg", b"", reason="empty file$")
    image = picture("no photo")
    lab = Image.new("LAB", (64, 32), (100, 50, 30))
    photoshop = b"8BPS\0\1" + b"\0" * 6 + b"\0\3\0\0\0\1\0\0\0\1\0\10\0\3" + b"\0" * 20
    for name, data, start in (
        ("a web page.jpg", b"<!DOCTYPE html><title>404 Not Found</title>", "a web page: "),
        ("text.jpg", b"A dog runs.\n", "a text file: "),
        ("pointer.jpg", LFS_POINTER, "a Git LFS pointer: run `git lfs pull`$"),
        ("zeros.jpg", b"\0" * 4096, NO_PHOTO),
        ("one byte.jpg", b"\xff", NO_PHOTO),
        ("a GIF.jpg", encoded(image, "GIF"), "a GIF image: convert "),
        ("a TIFF.jpg", encoded(image, "TIFF"), "a TIFF image or raw photo: convert "),
        ("a Lab TIFF.jpg", encoded(lab, "TIFF"), "a TIFF image or raw photo: convert "),
        ("a BMP.jpg", encoded(image, "BMP"), "a BMP image: convert "),
        ("a PSD.jpg", photoshop, "a Photoshop file: export "),
        ("a PDF.png", b"%PDF-1.4\n", "a PDF document: "),
        ("an SVG.png", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing: convert "),
        ("a HEIC.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC photo: convert to JPEG "),
        ("an AVIF.webp", b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "an AVIF image: convert "),
        ("a WAV.webp", b"RIFF\x24\0\0\0WAVEfmt ", NO_PHOTO),
        ("line ends changed.png", as_png(image).replace(b"\r\n", b"\n"), NO_PHOTO),
    ):
        yield StrangePhoto(name, data, reason=start)


def _damaged() -> Iterator[StrangePhoto]:
    image = picture("damaged")
    noisy = make_photo(WIDTH, HEIGHT)
    files = {"jpg": as_jpeg(noisy), "png": as_png(noisy), "webp": as_webp(noisy)}
    for kind, data in files.items():
        for part in (1, 3):
            cut = data[: len(data) * part // 4]
            yield StrangePhoto(f"{part} of 4 parts.{kind}", cut, reason=DAMAGED)
        yield StrangePhoto(f"16 bytes of a photo.{kind}", data[:16], reason=DAMAGED)
    # The chunks of a PNG, from the signature to the end of the pixels, have checksums.
    for offset in spread(8, len(files["png"]) - 12, 12):
        flip = flipped(files["png"], offset)
        yield StrangePhoto(f"bit flipped at {offset}.png", flip, reason=DAMAGED)
    for kind in ("jpg", "webp"):
        for offset in spread(2, len(files[kind]), 12):
            flip = flipped(files[kind], offset)
            name = f"bit flipped at {offset}.{kind}"
            yield StrangePhoto(name, flip, reason=f"{DAMAGED}|{NO_PHOTO}", may_go_unnoticed=True)
    indices = np.asarray(image.quantize(4))
    yield StrangePhoto("no palette.png", png_of(indices, 8, 3), reason=f"{DAMAGED}its palette is m")
    checksum = len(files["png"]) - 13  # of the pixels, which are undamaged
    yield StrangePhoto(
        "checksum flipped.png", flipped(files["png"], checksum), reason=f"{DAMAGED}.*checksum"
    )
    yield StrangePhoto("16 x 0.png", png(16, 0, 8, 2, b""), reason=DAMAGED)
    for name, header in {
        "12 bits.jpg": struct.pack(">BHH", 12, HEIGHT, WIDTH),
        "no height.jpg": struct.pack(">BHH", 8, 0, WIDTH),
    }.items():
        yield StrangePhoto(name, with_frame(as_jpeg(image), header), reason=DAMAGED)


def _bombs() -> Iterator[StrangePhoto]:
    def with_chunk(image: Image.Image, extra: bytes) -> bytes:
        return png_of(np.asarray(image), 8, 2, extra)

    too_many = "{} x {} pixels, more than max_pixels 100000000$"
    yield StrangePhoto(
        "header of 100 megapixels.png",
        png(10_000, 10_001, 8, 2, b""),
        reason=too_many.format(10_000, 10_001),
    )
    most = (1 << 31) - 1
    yield StrangePhoto(
        "header of all pixels.png", png(most, most, 16, 6, b""), reason=too_many.format(most, most)
    )
    lie = struct.pack(">BHH", 8, 65_500, 65_500)
    yield StrangePhoto(
        "header of 4 gigapixels.jpg",
        with_frame(as_jpeg(picture("bomb")), lie),
        reason=too_many.format(65_500, 65_500),
    )
    webp = bytearray(as_webp(picture("bomb")))
    webp[21:25] = struct.pack("<I", 16_383 << 14 | 16_383)
    yield StrangePhoto(
        "header of 268 megapixels.webp", bytes(webp), reason=too_many.format(16_384, 16_384)
    )
    yield StrangePhoto(  # a valid photo: 144 million black pixels in 18 kB
        "144 megapixels.png",
        png(12_000, 12_000, 1, 0, b"\0" * 1501 * 12_000),
        reason=too_many.format(12_000, 12_000),
    )
    zeros = zlib.compress(b"\0" * 20_000_000, 1)
    for kind, start in (
        (b"zTXt", b"Raw profile type exif\0\0"),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0"),
        (b"iCCP", b"x\0\0"),
    ):
        yield row(
            f"bomb in {kind.decode()}.png", partial(with_chunk, extra=chunk(kind, start + zeros))
        )
    progressive = as_jpeg(picture("bomb"), progressive=True)
    last = progressive[progressive.rindex(b"\xff\xda") : -2]
    yield StrangePhoto(
        "many scans.jpg",
        progressive[:-2] + 100 * last + progressive[-2:],
        reason=f"{DAMAGED}more than 100 scans",
    )
    yield StrangePhoto(
        "a hole of 16 GB.jpg",
        make_hole,
        reason="17179869184 bytes, more than any photo has$",
    )


def _links() -> Iterator[StrangePhoto]:
    def link(target: str | Path) -> Callable[[Path], None]:
        return lambda path: path.symlink_to(target)

    plain = corners(picture("plain.png"))
    yield StrangePhoto("link inside.png", link("plain.png"), plain)
    yield StrangePhoto("deep/link up and inside.png", link("../plain.png"), plain)
    yield StrangePhoto("link of a link.png", link("link inside.png"), plain)
    yield StrangePhoto("link out.png", link("../../secret.png"), reason=OUTSIDE)
    yield StrangePhoto(
        "link out and in and out.png", link("../images/../../secret.png"), reason=OUTSIDE
    )
    yield StrangePhoto(
        "absolute link out.png",
        lambda path: path.symlink_to(path.parents[2].resolve() / "secret.png"),
        reason=OUTSIDE,
    )
    yield StrangePhoto("link to a device.png", link("/dev/zero"), reason=OUTSIDE)
    yield StrangePhoto("link nowhere.png", link("nowhere"), reason="cannot be read: No such file")
    yield StrangePhoto("link to itself.png", link("link to itself.png"), reason="cannot be read: ")
    # Photos in linked folders, see `write_data_set`.
    er = corners(picture("deep/er/plain.png"))
    yield StrangePhoto("link to a folder inside/er/plain.png", Path.lstat, er)
    yield StrangePhoto("link to a folder inside/link up and inside.png", Path.lstat, plain)
    for name in ("outside/photo.png", "above/secret.png", "above/elsewhere/photo.png"):
        yield StrangePhoto(f"link to a folder {name}", Path.lstat, reason=OUTSIDE)


def _no_files() -> Iterator[StrangePhoto]:
    yield StrangePhoto("folder.jpg", lambda path: path.mkdir(), reason="not a file$")
    yield StrangePhoto("pipe.jpg", os.mkfifo, reason="not a file$")
    if sys.platform == "linux":
        yield StrangePhoto(
            "socket.jpg", lambda path: os.mknod(path, stat.S_IFSOCK), reason="not a file$"
        )
    yield StrangePhoto(
        "locked.png",
        make_locked,
        reason="cannot be read: Permission denied$",
    )


def write_data_set(root: Path, files: list[StrangePhoto]) -> None:
    """Write `files` as the photos of a data set in the Kaggle format, and others beside it."""
    images, alternative = root / "images", root.parent / "elsewhere"
    for folder in (images / "deep", alternative):
        folder.mkdir(parents=True)
    for path in (root.parent / "secret.png", alternative / "photo.png"):
        path.write_bytes(as_png(picture("secret")))
    for name, target in {
        "link to a folder inside": "deep",
        "link to a folder outside": "../../elsewhere",
        "link to a folder above": "../..",
        "link to the folder itself": ".",
        "no photo, a link to itself": "no photo, a link to itself",
    }.items():
        (images / name).symlink_to(target)
    (images / ".hidden.png").write_bytes(as_png(picture("hidden")))
    for file in files:
        file.write(images)
    names = ["plain.png", "plain.jpg", "link out.png", *UNSAFE, *NOT_THERE, *REPAIRED]
    rows = "".join(f"{name},A photo\n" for name in names)
    (root / "captions.txt").write_text(f"image,caption\n{rows}", "utf-8")


if __name__ == "__main__":
    write_data_set(Path(sys.argv[1]), corpus())
