import io
import os
import random
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from filelock import FileLock
from PIL import Image, ImageOps

from pipeline.features.decoding import photos
from pipeline.features.decoding.photos import (
    PhotoError,
    decode_photo,
    open_rgb,
    read_photo,
    thumbnail,
)
from pipeline.image_types import identify
from tests.conftest import encoded, make_photo
from tests.support.photo_parts import mutated

SIZE = 24
MAX_PIXELS = 1_000_000


def pixels(data: bytes, size: int = SIZE) -> npt.NDArray[np.int64]:
    decoded = decode_photo(data, size, MAX_PIXELS)
    assert decoded.dtype == np.uint8
    assert decoded.shape == (1, size, size, 3)
    image: npt.NDArray[np.int64] = decoded[0].astype(np.int64)
    return image


def expected(image: Image.Image) -> npt.NDArray[np.int64]:
    square = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return np.asarray(square).astype(np.int64)


def reason(data: bytes) -> str:
    with pytest.raises(PhotoError) as caught:
        decode_photo(data, SIZE, MAX_PIXELS)
    message = str(caught.value)
    assert "\n" not in message
    return message


def flat(mode: str, colour: float | tuple[int, ...]) -> Image.Image:
    return Image.new(mode, (20, 16), colour)


def png(width: int, height: int, depth: int, kind: int, rows: bytes) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


# Photos that must look the same after decoding.


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("WEBP", {"quality": 90}, 12),
        ("JPEG", {"quality": 95}, 12),
        ("JPEG", {"quality": 95, "progressive": True}, 12),
    ],
)
def test_each_format_decodes_to_the_original_pixels(
    kind: str, options: dict[str, object], tolerance: int
) -> None:
    photo = make_photo()
    difference = np.abs(pixels(encoded(photo, kind, **options)) - expected(photo))
    assert difference.max() <= tolerance


def test_the_format_is_recognized_by_content_not_by_name(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(make_photo(), "PNG"))
    assert np.array_equal(pixels(read_photo(path, tmp_path)), expected(make_photo()))


@pytest.mark.parametrize("mode", ["L", "1", "P"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_grey_two_colour_and_palette_photos_become_rgb(mode: str, kind: str) -> None:
    photo = make_photo().convert(mode)
    if (mode, kind) == ("1", "WEBP"):
        photo = photo.convert("L")
    difference = np.abs(pixels(encoded(photo, kind, lossless=True)) - expected(photo))
    assert difference.max() <= 1


def test_a_grey_jpeg_has_three_equal_channels() -> None:
    decoded = pixels(encoded(make_photo().convert("L"), "JPEG", quality=95))
    assert (decoded[..., 0] == decoded[..., 1]).all()
    assert (decoded[..., 0] == decoded[..., 2]).all()


def test_a_cmyk_jpeg_has_the_colours_of_the_rgb_one() -> None:
    photo = make_photo().convert("CMYK")
    difference = np.abs(pixels(encoded(photo, "JPEG", quality=95)) - expected(photo))
    assert difference.mean() < 4


@pytest.mark.parametrize(("value", "decoded"), [(0, 0), (32768, 128), (255, 0), (65535, 255)])
def test_sixteen_bit_grey_is_scaled_not_clipped(value: int, decoded: int) -> None:
    grey = Image.fromarray(np.full((16, 20), value, np.uint16))
    assert (pixels(encoded(grey, "PNG")) == decoded).all()


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_sixteen_bit_colours_are_scaled_not_clipped(kind: int, channels: int) -> None:
    row = b"\x00" + struct.pack(">H", 32768) * (channels - 1) * 4
    opaque = struct.pack(">H", 65535 if kind in {4, 6} else 32768)
    pixel = struct.pack(">H", 32768) * (channels - 1) + opaque
    row = b"\x00" + pixel * 4
    assert (pixels(png(4, 4, 16, kind, row * 4)) == 128).all()


# Transparency.


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize(
    ("mode", "clear", "half_clear", "half_clear_decoded"),
    [
        ("RGBA", (200, 0, 0, 0), (0, 0, 0, 128), 127),
        ("LA", (200, 0), (0, 128), 127),
    ],
)
def test_transparency_is_put_on_white(
    kind: str,
    mode: str,
    clear: tuple[int, ...],
    half_clear: tuple[int, ...],
    half_clear_decoded: int,
) -> None:
    for colour, expected_value in ((clear, 255), (half_clear, half_clear_decoded)):
        image = flat(mode, colour).convert("RGBA" if kind == "WEBP" else mode)
        decoded = pixels(encoded(image, kind, lossless=True))
        assert (np.abs(decoded - expected_value) <= 1).all()


def test_the_transparent_colour_of_a_palette_becomes_white() -> None:
    image = Image.new("P", (20, 16), 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    assert (pixels(encoded(image, "PNG")) == [40, 50, 60]).all()
    assert (pixels(encoded(image, "PNG", transparency=1)) == 255).all()
    assert (pixels(encoded(image, "PNG", transparency=0)) == [40, 50, 60]).all()
    assert (pixels(encoded(image, "PNG", transparency=b"\xff\x00")) == 255).all()


@pytest.mark.parametrize(
    ("mode", "colour", "transparent"),
    [("L", 7, 7), ("RGB", (7, 8, 9), (7, 8, 9)), ("1", 0, 0)],
)
def test_the_transparent_colour_of_other_pngs_becomes_white(
    mode: str, colour: float | tuple[int, ...], transparent: object
) -> None:
    data = encoded(flat(mode, colour), "PNG", transparency=transparent)
    assert (pixels(data) == 255).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L", "I;16"])
def test_converting_in_strips_gives_the_same_pixels(
    monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    clear: dict[str, object] = {"P": 3, "RGB": (1, 2, 3), "L": 3}
    options = {"transparency": clear[mode]} if mode in clear else {}
    rng = np.random.default_rng(1)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 1 << 16, (37, 20), np.uint16))
    else:
        values = rng.integers(0, 256, (37, 20, 4), np.uint8)
        image = Image.fromarray(values, "RGBA").convert(mode)
    data = encoded(image, "PNG", **options)
    in_one_strip = pixels(data)
    monkeypatch.setattr("pipeline.features.decoding.photos._STRIP_ROWS", 5)
    assert np.array_equal(pixels(data), in_one_strip)


def test_a_photo_that_does_not_fit_in_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(_: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr("pipeline.features.decoding.photos._rgb", out_of_memory)
    with pytest.raises(PhotoError, match="takes more memory than there is: lower max_pixels"):
        pixels(encoded(make_photo(), "PNG"))


# Frames, orientation, size.


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_the_first_frame_of_an_animation_is_decoded(kind: str) -> None:
    first, second = make_photo(), ImageOps.invert(make_photo())
    data = encoded(first, kind, save_all=True, append_images=[second], lossless=True)
    with Image.open(io.BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == 2
    assert np.array_equal(pixels(data), expected(first))


def test_the_first_picture_of_a_two_picture_jpeg_is_decoded() -> None:
    first, second = make_photo(), ImageOps.invert(make_photo())
    data = encoded(first, "MPO", save_all=True, append_images=[second], quality=95)
    assert np.abs(pixels(data) - expected(first)).max() <= 12


# How a camera stores the same scene when held in each of the eight orientations.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(("kind", "tolerance"), [("PNG", 0), ("WEBP", 0), ("JPEG", 25)])
def test_all_eight_orientations_decode_to_the_same_picture(
    orientation: int, kind: str, tolerance: int
) -> None:
    photo = make_photo(48, 32)
    turn = STORED[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = photo if turn is None else photo.transpose(turn)
    data = encoded(stored, kind, exif=exif, lossless=True, quality=95)
    assert np.abs(pixels(data) - expected(photo)).max() <= tolerance


def test_an_orientation_that_does_not_exist_changes_nothing() -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    data = encoded(make_photo(), "PNG", exif=exif)
    assert np.array_equal(pixels(data), expected(make_photo()))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # the product hides them, pytest does not
def test_a_photo_with_damaged_exif_is_decoded() -> None:
    exif = Image.Exif()
    exif[0x010E] = "a description" * 9
    data = encoded(make_photo(), "PNG", exif=exif.tobytes()[:60])
    assert np.array_equal(pixels(data), expected(make_photo()))


@pytest.mark.parametrize("exif", [0, 6])
def test_a_large_jpeg_has_the_size_and_colours_of_its_photo(exif: int) -> None:
    photo = make_photo(1000, 800)
    tags = Image.Exif()
    tags[0x0112] = exif
    upright = photo.transpose(Image.Transpose.ROTATE_270) if exif else photo
    difference = np.abs(pixels(encoded(photo, "JPEG", exif=tags)) - expected(upright))
    assert difference.mean() < 4
    assert difference.max() < 40


def test_a_large_jpeg_is_decoded_at_reduced_size_but_at_least_twice_the_target() -> None:
    data = encoded(make_photo(1000, 800), "JPEG")
    for size, decoded in ((24, (125, 100)), (400, (1000, 800))):
        with open_rgb(data, size, MAX_PIXELS) as image:
            assert image.size == decoded


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 10_000), (10_000, 1), (3, 500)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_odd_shapes_become_squares(width: int, height: int, kind: str) -> None:
    image = Image.new("RGB", (width, height), (200, 100, 50))
    assert (np.abs(pixels(encoded(image, kind, quality=100)) - [200, 100, 50]) <= 6).all()


def test_a_thumbnail_keeps_the_proportions() -> None:
    small = thumbnail(encoded(make_photo(400, 200), "JPEG"), 40)
    assert (small.mode, small.size) == ("RGB", (40, 20))


# What is refused.


@pytest.mark.parametrize(
    ("data", "expected_reason"),
    [
        (b"", "an empty file: copy or download again"),
        (b"\x00", "an unknown file: only JPEG, PNG and WebP photos are decoded"),
        (b"<!DOCTYPE html><title>404</title>", "a web page: download the photo itself"),
        (encoded(make_photo(), "GIF"), "a GIF image: convert to PNG, for example with magick"),
        (
            encoded(make_photo(), "TIFF"),
            identify(encoded(make_photo(), "TIFF")).reason,
        ),
        (encoded(make_photo(), "BMP"), "a BMP image: convert to PNG, for example with magick"),
        (b"%PDF-1.4", "a PDF document: save the pictures as JPEG"),
    ],
)
def test_other_formats_than_jpeg_png_and_webp_are_refused_with_the_fix(
    data: bytes, expected_reason: str
) -> None:
    assert reason(data) == expected_reason


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_photo_is_refused(kind: str, share: float) -> None:
    data = encoded(make_photo(200, 200), kind)
    assert reason(data[: int(len(data) * share)]).startswith("damaged image: ")


def test_too_many_pixels_are_refused_on_the_header() -> None:
    assert reason(png(1000, 1001, 8, 2, b"")) == "1000 x 1001 pixels, more than max_pixels 1000000"
    assert reason(png(1000, 1000, 8, 2, b"")).startswith("damaged image: ")


def test_a_huge_size_in_the_header_is_refused_without_allocating_memory(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="POSIX only")
    path = tmp_path / "huge.png"
    path.write_bytes(png(200_000, 200_000, 8, 6, b"\x00" * 64))  # 160 GB as RGBA
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from pipeline.features.decoding.photos import PhotoError, decode_photo\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (2 << 30, {resource.RLIM_INFINITY}))\n"
        "try:\n    decode_photo(Path(sys.argv[1]).read_bytes(), 24, 100_000_000)\n"
        "except PhotoError as error:\n    print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=False
    )
    assert result.stderr == ""
    assert result.stdout == "200000 x 200000 pixels, more than max_pixels 100000000\n"


def seeds() -> list[bytes]:
    photo = make_photo()
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description"
    return [
        encoded(photo, "JPEG", exif=exif),
        encoded(photo.convert("CMYK"), "JPEG", progressive=True),
        encoded(photo, "PNG", exif=exif),
        encoded(photo.quantize(16), "PNG", transparency=b"\x00\x80"),
        encoded(Image.fromarray(np.full((16, 20), 999, np.uint16)), "PNG"),
        encoded(photo, "PNG", save_all=True, append_images=[photo.rotate(90)]),
        encoded(photo, "WEBP", exif=exif),
        encoded(photo.convert("RGBA"), "WEBP", lossless=True),
        encoded(photo, "WEBP", save_all=True, append_images=[photo.rotate(90)]),
        encoded(photo, "MPO", save_all=True, append_images=[photo.rotate(90)]),
    ]


def with_checksums(data: bytes) -> bytes:
    """Correct a PNG's checksums, so that damage reaches the decoder."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    offset, parts = 8, [data[:8]]
    while offset + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, offset)
        body = data[offset + 4 : offset + 8 + length]
        if len(body) < length + 4:
            break
        parts += [data[offset : offset + 4], body, struct.pack(">I", zlib.crc32(body))]
        offset += 12 + length
    return b"".join(parts)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # the product hides them, pytest does not
@pytest.mark.parametrize("number", range(10))
def test_random_damage_is_refused_or_decoded_and_raises_nothing_else(number: int) -> None:
    good = seeds()[number]
    rng = random.Random(number)
    outcomes = set()
    for _ in range(100):
        data = bytearray(good)
        for _ in range(rng.choice([1, 1, 2, 8])):
            offset = rng.randrange(min(len(data), 300) if rng.random() < 0.7 else len(data))
            data[offset] = rng.choice([data[offset] ^ 1 << rng.randrange(8), 0, 127, 255])
        damaged = bytes(data)[: rng.choice([None, None, None, rng.randrange(len(data))])]
        if rng.random() < 0.6:
            damaged = with_checksums(damaged)
        try:
            assert decode_photo(damaged, SIZE, MAX_PIXELS).shape == (1, SIZE, SIZE, 3)
            outcomes.add("decoded")
        except PhotoError:
            outcomes.add("refused")
    assert outcomes == {"decoded", "refused"}


@pytest.mark.parametrize(
    "count", [300, pytest.param(20_000, marks=pytest.mark.soak)], ids=["few", "many"]
)
def test_mutated_files_are_refused_or_decoded_in_little_time(count: int) -> None:
    files, rng = seeds(), random.Random(5)
    outcomes, slowest = set(), 0.0
    for _ in range(count):
        data = mutated(rng, files)
        if rng.random() < 0.5:
            data = with_checksums(data)
        start = time.process_time()
        try:
            decode_photo(data, SIZE, MAX_PIXELS)
            outcomes.add("decoded")
        except PhotoError:
            outcomes.add("refused")
        slowest = max(slowest, time.process_time() - start)
    assert outcomes == {"decoded", "refused"}
    assert slowest < 2


# Memory.


@pytest.fixture
def all_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Treat every photo as a large one; return the folder of the lock."""
    monkeypatch.setattr("pipeline.features.decoding.photos._LARGE_BYTES", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_large_photos_are_decoded_one_at_a_time(
    all_large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, counts = [0], []

    def decode(*_: object) -> Image.Image:
        running[0] += 1
        time.sleep(0.01)
        counts.append(running[0])
        running[0] -= 1
        return Image.new("RGB", (20, 16))

    monkeypatch.setattr("pipeline.features.decoding.photos._decode", decode)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(pixels, [encoded(make_photo(), "PNG")] * 8))
    assert counts == [1] * 8
    assert len(list(all_large.iterdir())) == 1


def test_small_photos_are_decoded_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=60)

    def decode(*_: object) -> Image.Image:
        both.wait()
        return Image.new("RGB", (20, 16))

    monkeypatch.setattr("pipeline.features.decoding.photos._decode", decode)
    with ThreadPoolExecutor(2) as pool:
        assert len(list(pool.map(pixels, [encoded(make_photo(), "PNG")] * 2))) == 2
    assert not both.broken


def test_a_large_photo_waits_for_that_of_another_process(all_large: Path) -> None:
    data = encoded(make_photo(), "PNG")
    pixels(data)
    (path,) = all_large.iterdir()
    lock = FileLock(path)
    with ThreadPoolExecutor(1) as pool:
        with lock:
            waiting = pool.submit(pixels, data)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.2)
        assert waiting.result(timeout=60).shape == (SIZE, SIZE, 3)


def test_a_large_photo_gives_up_waiting_when_the_run_ends(
    all_large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photos, "stop_waiting", threading.Event())
    data = encoded(make_photo(), "PNG")
    with ThreadPoolExecutor(1) as pool, open_rgb(data, SIZE, MAX_PIXELS):
        waiting = pool.submit(pixels, data)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.2)
        photos.stop_waiting.set()
        with pytest.raises(PhotoError, match="not decoded: the run was stopped"):
            waiting.result(timeout=60)
    assert pixels(data).shape == (SIZE, SIZE, 3)
    assert list(all_large.iterdir())


def test_large_photos_are_decoded_without_a_temporary_folder(
    all_large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(all_large / "nowhere"))
    assert pixels(encoded(make_photo(), "PNG")).shape == (SIZE, SIZE, 3)


def header(width: int, height: int, kind: str) -> bytes:
    """Return a file that claims to have so many pixels."""
    if kind == "PNG":
        return png(width, height, 8, 2, b"")
    data = bytearray(encoded(make_photo(), kind.removesuffix("+"), progressive=kind == "JPEG+"))
    if kind == "WEBP":
        data = bytearray(encoded(make_photo(), kind, lossless=True))
        data[21:25] = struct.pack("<I", (height - 1) << 14 | (width - 1))
    else:
        start = data.index(b"\xff\xc2" if kind == "JPEG+" else b"\xff\xc0") + 5
        data[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize(
    ("kind", "megapixels", "is_large"),
    [
        ("JPEG", 12, False),
        ("JPEG", 100, False),  # decoded at an eighth
        ("JPEG+", 24, False),
        ("JPEG+", 100, True),
        ("PNG", 24, False),
        ("PNG", 100, True),
        ("WEBP", 12, False),
        ("WEBP", 99, True),
    ],
)
def test_a_photo_is_large_by_the_memory_that_its_format_takes(
    monkeypatch: pytest.MonkeyPatch, kind: str, megapixels: int, is_large: bool
) -> None:
    sizes: list[int] = []

    def limit(size: int) -> None:
        sizes.append(size)
        raise PhotoError("seen")

    monkeypatch.setattr(photos, "_limited_memory", limit)
    data = header(10_000, megapixels * 100, kind)
    with pytest.raises(PhotoError, match="seen"):
        decode_photo(data, 299, 100_000_000)
    assert (sizes[0] >= photos._LARGE_BYTES) == is_large


# Files.


def read_error(path: Path, folder: Path | None = None) -> str:
    with pytest.raises(PhotoError) as caught:
        read_photo(path, folder)
    return str(caught.value)


def test_a_file_is_read_as_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"abc")
    assert read_photo(tmp_path / "a.jpg") == b"abc"
    assert read_photo(tmp_path / "a.jpg", tmp_path) == b"abc"


def test_folders_empty_files_and_broken_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "lost.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "circle.jpg").symlink_to(tmp_path / "circle.jpg")
    assert read_error(tmp_path / "folder.jpg", tmp_path) == "not a file"
    assert read_error(tmp_path / "empty.jpg", tmp_path) == "empty file"
    assert read_error(tmp_path / "lost.jpg", tmp_path).startswith("cannot be read: No such file")
    assert read_error(tmp_path / "gone.jpg", tmp_path).startswith("cannot be read: No such file")
    assert read_error(tmp_path / "circle.jpg", tmp_path).startswith("cannot be read: ")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX only")
def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert read_error(tmp_path / "pipe.jpg", tmp_path) == "not a file"


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root can read everything"
)
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.jpg"
    path.write_bytes(b"x")
    path.chmod(0)
    assert read_error(path, tmp_path) == "cannot be read: Permission denied"


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "real.jpg").write_bytes(b"inside")
    (tmp_path / "secret.txt").write_bytes(b"outside")
    (folder / "good.jpg").symlink_to("real.jpg")
    (folder / "bad.jpg").symlink_to(tmp_path / "secret.txt")
    (folder / "deep").symlink_to(tmp_path)
    assert read_photo(folder / "good.jpg", folder) == b"inside"
    for name in ("bad.jpg", "deep/secret.txt", "../secret.txt"):
        assert read_error(folder / name, folder) == "a link to a file outside the photo folder"
    assert read_photo(folder / "bad.jpg") == b"outside"


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.jpg").write_bytes(b"inside")
    (tmp_path / "photos").symlink_to("real")
    assert read_photo(tmp_path / "photos" / "a.jpg", tmp_path / "photos") == b"inside"
