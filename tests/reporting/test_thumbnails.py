import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.reporting.thumbnails import attention_overlay, make_thumbnail, thumbnail_side
from tests.conftest import encoded, make_photo


def pixels(uri: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    head, _, data = uri.partition(",")
    assert head == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
        return np.asarray(image.convert("RGBA"))


def test_an_overlay_is_black_and_clear_where_attention_is_high() -> None:
    weights = [255, 128, 0, 17, 34, 0, 0, 0, 255]
    rgba = pixels(attention_overlay(weights))
    assert rgba.shape == (3, 3, 4)
    assert not rgba[..., :3].any()
    opacity = rgba[..., 3]
    assert opacity.ravel().tolist() == [0, 98, 210, 196, 182, 210, 210, 210, 0]
    # The photo shows through everywhere, and less attention is never brighter.
    assert opacity.max() < 255
    steps = [int(pixels(attention_overlay([value]))[0, 0, 3]) for value in range(256)]
    assert steps == sorted(steps, reverse=True)


def test_an_overlay_takes_few_bytes() -> None:
    weights = np.random.default_rng(0).integers(0, 256, 100).tolist()
    assert len(attention_overlay(weights)) < 250


@pytest.mark.parametrize(("size", "expected"), [((480, 240), (240, 120)), ((60, 90), (60, 90))])
def test_a_thumbnail_has_its_size(
    tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    (tmp_path / "x.png").write_bytes(encoded(make_photo(*size), "PNG"))
    thumbnail = make_thumbnail(tmp_path / "x.png", 240)
    assert thumbnail is not None
    assert (thumbnail.width, thumbnail.height) == expected
    assert pixels(thumbnail.data_uri).shape == (expected[1], expected[0], 4)


def test_a_missing_or_damaged_photo_has_no_thumbnail(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no photo")
    assert make_thumbnail(tmp_path / "x.png", 240) is None
    assert make_thumbnail(tmp_path / "missing.png", 240) is None
    assert make_thumbnail(None, 240) is None


def test_the_more_photos_the_smaller_so_that_the_page_stays_moderate() -> None:
    sides = [thumbnail_side(n_photos) for n_photos in (1, 80, 1000, 5000)]
    assert sides == [640, 640, 320, 160]
