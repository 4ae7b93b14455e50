from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.captioner.training import samples
from pipeline.captioner.training.samples import (
    choose_sample_photos,
    write_contact_sheet,
    write_text_sample,
)

IDS = [f"{number}.jpg" for number in range(20)]
GREY = (211, 211, 211)


def test_the_same_photos_are_chosen_for_the_same_seed() -> None:
    image_ids = choose_sample_photos(IDS, 6, seed=1)
    assert image_ids == choose_sample_photos(IDS, 6, seed=1)
    assert image_ids != choose_sample_photos(IDS, 6, seed=2)
    assert image_ids == sorted(set(image_ids))
    assert len(image_ids) == 6
    assert set(image_ids) <= set(IDS)
    assert all(type(image_id) is str for image_id in image_ids)


def test_at_most_all_photos_are_chosen() -> None:
    assert choose_sample_photos(IDS[:2], 6, seed=1) == IDS[:2]
    assert choose_sample_photos(IDS, 0, seed=1) == []
    assert choose_sample_photos([], 6, seed=1) == []


def test_the_text_has_a_line_for_each_photo(tmp_path: Path) -> None:
    path = tmp_path / "samples" / "epoch_001.txt"
    write_text_sample(path, {"b.jpg": "ein dackel läuft", "a.jpg": ""})
    assert path.read_bytes() == "b.jpg\tein dackel läuft\na.jpg\t\n".encode()


def test_what_could_control_a_terminal_is_escaped_in_the_text(tmp_path: Path) -> None:
    path = tmp_path / "epoch_001.txt"
    write_text_sample(path, {"a\n.jpg": "\x1b[2J\u202edog"})
    assert path.read_bytes() == b"a\\n.jpg\t\\x1b[2J\\u202edog\n"


def photo(path: Path, colour: str, size: tuple[int, int] = (300, 300)) -> Path:
    Image.new("RGB", size, colour).save(path)
    return path


def sheet(
    tmp_path: Path, captions: dict[str, str], photos: dict[str, Path | None] | None = None
) -> Image.Image:
    path = tmp_path / "sheet.png"
    write_contact_sheet(path, photos or {}, captions, "epoch 1")
    assert path.read_bytes().startswith(b"\x89PNG")
    with Image.open(path) as image:
        image.load()
        return image


def cell(image: Image.Image, row: int, column: int) -> tuple[int, int]:
    """Return the position of a photo's centre on the sheet."""
    margin, side = samples._MARGIN, samples._SIDE
    height = side + samples._CAPTION_HEIGHT + margin
    x = margin + column * (side + margin) + side // 2
    y = 3 * margin + row * height + side // 2
    assert x < image.width
    assert y < image.height
    return x, y


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (3, 1), (4, 2), (6, 2), (7, 3)])
def test_the_sheet_has_a_row_for_every_three_photos(tmp_path: Path, count: int, rows: int) -> None:
    image = sheet(tmp_path, dict.fromkeys(IDS[:count], "a dog"))
    margin, side = samples._MARGIN, samples._SIDE
    assert image.width == 3 * (side + margin) + margin
    height = side + samples._CAPTION_HEIGHT + margin
    assert image.height == rows * height + 3 * margin
    # Grey squares replace the photos; cells without a photo are white.
    for position in range(3 * rows):
        colour = image.getpixel(cell(image, *divmod(position, 3)))
        assert colour == (GREY if position < count else (255, 255, 255))


def test_photos_are_in_the_order_of_the_captions(tmp_path: Path) -> None:
    colours = {"c.jpg": "red", "a.jpg": "blue", "b.jpg": "lime", "d.jpg": "black"}
    photos: dict[str, Path | None] = {
        name: photo(tmp_path / f"{name}.png", colour) for name, colour in colours.items()
    }
    image = sheet(tmp_path, dict.fromkeys(colours, "a dog"), photos)
    pixels = [image.getpixel(cell(image, *divmod(position, 3))) for position in range(4)]
    assert pixels == [(255, 0, 0), (0, 0, 255), (0, 255, 0), (0, 0, 0)]


def test_a_missing_or_damaged_photo_is_a_grey_square(tmp_path: Path) -> None:
    (tmp_path / "damaged.jpg").write_bytes(b"\xff\xd8\xff no photo")
    photos: dict[str, Path | None] = {
        "gone.jpg": tmp_path / "gone.jpg",
        "damaged.jpg": tmp_path / "damaged.jpg",
        "unknown.jpg": None,
    }
    image = sheet(tmp_path, dict.fromkeys(photos, "a dog"), photos)
    assert [image.getpixel(cell(image, 0, column)) for column in range(3)] == [GREY] * 3


def test_captions_are_written_below_their_photos(tmp_path: Path) -> None:
    empty = np.asarray(sheet(tmp_path, dict.fromkeys(IDS[:3], "")))
    written = np.asarray(sheet(tmp_path, {IDS[0]: "", IDS[1]: "a dog", IDS[2]: ""}))
    rows, columns = np.nonzero((empty != written).any(axis=-1))
    margin, side = samples._MARGIN, samples._SIDE
    assert rows.size > 20
    assert rows.min() >= 2 * margin + side
    assert columns.min() >= 2 * margin + side
    assert columns.max() < 2 * (margin + side)


def test_long_captions_and_other_scripts_do_not_overlap_photos(tmp_path: Path) -> None:
    texts = ["word " * 200, "x" * 500, "ein dackel läuft 狗 🐕"]
    image = np.asarray(sheet(tmp_path, dict(zip(IDS, [*texts, "a", "b", "c"], strict=False))))
    # Nothing covers the second row of photos.
    margin, side = samples._MARGIN, samples._SIDE
    top = 2 * margin + 4 + side + samples._CAPTION_HEIGHT + margin
    for column in range(3):
        left = margin + column * (side + margin)
        assert (image[top : top + side, left : left + side] == GREY).all()


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        write_contact_sheet(tmp_path / name, {}, {"a.jpg": "a dog"}, "epoch 1")
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()
