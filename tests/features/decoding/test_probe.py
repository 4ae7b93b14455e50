from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from pipeline.features.decoding import photos, probe, views
from pipeline.features.decoding.probe import decoding_sha256
from pipeline.features.decoding.views import VIEWS, View


def digest(name: str = "whole") -> str:
    return str(decoding_sha256.__wrapped__(name))


def test_the_digest_is_the_same_each_time_and_differs_between_views() -> None:
    assert digest() == decoding_sha256("whole") == decoding_sha256("whole")
    assert len({digest(name) for name in VIEWS}) == len(VIEWS)


def test_the_photos_reach_every_branch_of_decoding() -> None:
    decoded = set()
    for data in probe._photos():
        pixels = photos.decode_photo(data, 12, 100_000)
        assert len(np.unique(pixels)) > 20
        decoded.add(pixels.tobytes())
    assert len(decoded) == len(probe._photos())


def swapped(image: Image.Image) -> Image.Image:
    red, green, blue = original_rgb(image).split()
    return Image.merge("RGB", (blue, green, red))


original_rgb, resize = photos._rgb, Image.Image.resize
CHANGES: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "no rotation": lambda m: m.setattr(photos, "_TURNS", {}),
    "transparency is black": lambda m: m.setattr(
        photos, "_rgb", lambda image: original_rgb(image.convert("RGB"))
    ),
    "BGR": lambda m: m.setattr(photos, "_rgb", swapped),
    "JPEGs at full size": lambda m: m.setattr(JpegImageFile, "draft", lambda *_: None),
    "16 bits are clipped": lambda m: m.setattr(
        photos, "_strip_to_rgb", lambda image: image.convert("RGB")
    ),
    "resized bilinearly": lambda m: m.setattr(
        Image.Image,
        "resize",
        lambda image, size, _, box: resize(image, size, Image.Resampling.BILINEAR, box),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_in_decoding_changes_the_digest(
    monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    expected = digest()
    CHANGES[change](monkeypatch)
    assert digest() != expected


def test_a_change_in_the_views_changes_the_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = digest("mirror")
    changed: dict[str, Sequence[View]] = {"mirror": [View(), View(right=0.9, mirrored=True)]}
    monkeypatch.setattr(photos, "VIEWS", changed)
    assert digest("mirror") != expected


def test_every_crop_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = digest("crops")
    crop = views.View.crop

    def shifted(view: View, image: Image.Image, size: int) -> Any:
        return crop(view, image, size) if view.left == 0 else crop(View(), image, size)

    monkeypatch.setattr(View, "crop", shifted)
    assert digest("crops") != expected
