import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.reporting.thumbnails import picture, shade
from tests.conftest import encoded, make_photo


def pixels(uri: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    head, _, data = uri.partition(",")
    assert head == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as image:
        return np.asarray(image.convert("RGBA"))


def test_a_shade_is_black_and_clear_where_the_decoder_looked() -> None:
    places = [255, 128, 0, 17, 34, 0, 0, 0, 255]
    found = pixels(shade(places))
    assert found.shape == (3, 3, 4)
    assert not found[..., :3].any()
    opacity = found[..., 3]
    assert opacity.ravel().tolist() == [0, 98, 210, 196, 182, 210, 210, 210, 0]
    # Something of the photo is seen everywhere, and every step darker is less looked at.
    assert opacity.max() < 255
    steps = [int(pixels(shade([value]))[0, 0, 3]) for value in range(256)]
    assert steps == sorted(steps, reverse=True)


def test_a_shade_takes_few_bytes() -> None:
    places = np.random.default_rng(0).integers(0, 256, 100).tolist()
    assert len(shade(places)) < 250


@pytest.mark.parametrize(("size", "expected"), [((480, 240), (240, 120)), ((60, 90), (60, 90))])
def test_a_picture_tells_its_size(
    tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    (tmp_path / "x.png").write_bytes(encoded(make_photo(*size), "PNG"))
    found = picture(tmp_path / "x.png")
    assert found is not None
    assert (found.width, found.height) == expected
    assert pixels(found.data).shape == (expected[1], expected[0], 4)


def test_what_is_gone_or_damaged_has_no_picture(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no photo")
    assert picture(tmp_path / "x.png") is picture(tmp_path / "gone.png") is picture(None) is None
