from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pipeline.errors import InputError
from pipeline.features.photos import decode
from pipeline.features.store import FeatureStore
from pipeline.features.views import VIEWS, View, join
from tests.conftest import ENCODING, encoded
from tests.support.extraction import Colours, Place, spoil
from tests.support.store import IDS, vectors, write

SIZE = 32
COUNTS = {"whole": 1, "mirror": 2, "crops": 12}


def gradient(width: int = 96, height: int = 64) -> bytes:
    """Draw red that grows from 0 on the left to 240 on the right, and green, from the top."""
    right = np.linspace(0, 240, width)[None, :].repeat(height, axis=0)
    down = np.linspace(0, 240, height)[:, None].repeat(width, axis=1)
    pixels = np.stack([right, down, np.zeros_like(right)], axis=-1)
    return encoded(Image.fromarray(pixels.astype(np.uint8)), "PNG")


def decoded(views: str) -> npt.NDArray[np.uint8]:
    return decode(gradient(), SIZE, 10_000, views)


# What is shown.


@pytest.mark.parametrize("views", VIEWS)
def test_a_photo_is_decoded_to_all_its_views_the_whole_of_it_first(views: str) -> None:
    found = decoded(views)
    assert found.shape == (COUNTS[views], SIZE, SIZE, 3)
    assert found.dtype == np.uint8
    assert replace(ENCODING, views=views).view_count == COUNTS[views]
    assert VIEWS[views][0] == View()
    np.testing.assert_array_equal(found[:1], decode(gradient(), SIZE, 10_000))


@pytest.mark.parametrize("views", ["mirror", "crops"])
def test_every_second_view_is_the_mirror_image_of_the_one_before(views: str) -> None:
    found = decoded(views)
    np.testing.assert_array_equal(found[1::2], found[::2, :, ::-1])
    assert not np.array_equal(found[1::2], found[::2])


def edges(view: npt.NDArray[np.uint8]) -> list[float]:
    """Return what part of the gradient a view shows: left, top, right and bottom, as shares."""
    red, green = view[..., 0].astype(float), view[..., 1].astype(float)
    left, right = red[:, 0].mean(), red[:, -1].mean()
    top, bottom = green[0].mean(), green[-1].mean()
    return [value / 240 for value in (left, top, right, bottom)]


def test_crops_show_the_middle_and_the_corners() -> None:
    parts = [edges(view) for view in decoded("crops")[::2]]
    expected = [
        [0, 0, 1, 1],
        [1 / 8, 1 / 8, 7 / 8, 7 / 8],
        [0, 0, 3 / 4, 3 / 4],
        [1 / 4, 0, 1, 3 / 4],
        [0, 1 / 4, 3 / 4, 1],
        [1 / 4, 1 / 4, 1, 1],
    ]
    # A pixel's middle is half a pixel, of 32, inside the edge.
    np.testing.assert_allclose(np.array(parts), np.array(expected, float), atol=0.03)


# What is shown to a decoder that learned from them.


def test_of_pooled_views_it_is_the_mean() -> None:
    views = vectors(3, 6)
    np.testing.assert_allclose(join(views), (views[:, 0] + views[:, 1] + views[:, 2]) / 3, 1e-5)
    assert join(views).dtype == np.float32


def test_of_grids_it_is_the_whole_photo_s() -> None:
    views = vectors(3, 4, 6)
    np.testing.assert_array_equal(join(views), views[:, 0])


# What is stored.


def store_of(path: Path, *shape: int, views: str = "mirror") -> FeatureStore:
    """Write and open a store of vectors of that shape, of each photo."""
    rows = [(list(range(len(IDS))), vectors(*shape))]
    encoding = replace(ENCODING, views=views, pooling="grid" if len(shape) > 2 else "average")
    return FeatureStore.open(write(path, encoding=encoding, rows=rows))


@pytest.mark.parametrize("shape", [(6,), (4, 6)], ids=["pooled", "grid"])
def test_a_store_keeps_every_view_and_reads_them_joined(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    store = store_of(tmp_path / "features.h5", 2, *shape)
    stored = vectors(2, *shape)
    assert store.shape == shape
    np.testing.assert_array_equal(store.features, stored)
    store.verify()
    asked = [IDS[5], IDS[0], IDS[5]]
    np.testing.assert_array_equal(store.read(asked), join(stored[[5, 0, 5]]))


@pytest.mark.parametrize("shape", [(6,), (4, 6)], ids=["pooled", "grid"])
def test_one_view_of_each_photo_is_drawn_each_as_often(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    store = store_of(tmp_path / "features.h5", 2, *shape)
    stored = vectors(2, *shape)
    places = [5, 0, 5, 3] * 50
    drawn = store.draw([IDS[place] for place in places], np.random.default_rng(1))
    assert drawn.shape == (200, *shape)
    assert drawn.dtype == np.float32
    chosen = [
        [np.array_equal(vector, stored[place, view]) for view in (0, 1)].index(True)
        for place, vector in zip(places, drawn, strict=True)
    ]
    assert 70 < sum(chosen) < 130


def test_a_draw_follows_from_the_generator(tmp_path: Path) -> None:
    store = store_of(tmp_path / "features.h5", 12, 6, views="crops")
    first, again, other = (store.draw(IDS, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    random = np.random.default_rng(1)
    np.testing.assert_array_equal(store.draw(IDS, random), first)
    assert not np.array_equal(store.draw(IDS, random), first)


def test_of_one_view_a_draw_is_what_is_read(tmp_path: Path) -> None:
    store = store_of(tmp_path / "features.h5", 6, views="whole")
    random = np.random.default_rng(1)
    np.testing.assert_array_equal(store.draw(IDS, random), store.read(IDS))


@pytest.mark.parametrize("shape", [(6,), (3, 6), (1, 6), (12, 6)])
def test_another_number_of_views_than_it_tells_of_is_refused(
    tmp_path: Path, shape: Sequence[int]
) -> None:
    with pytest.raises(InputError, match=r"features\.h5 .*not of 2 views a photo.*dvc repro"):
        store_of(tmp_path / "features.h5", *shape)


# What is extracted.


@pytest.mark.parametrize(("views", "batch", "passes"), [("mirror", 5, 5), ("crops", 27, 5)])
def test_every_photo_gets_the_vectors_of_its_views(
    tmp_path: Path, views: str, batch: int, passes: int
) -> None:
    place = Place.drawn(tmp_path, 10)
    encoding = replace(ENCODING, views=views)
    # Images of a pass that are no multiple of a photo's views: two photos fit.
    result = place.extract(Colours(batch_size=batch), encoding=encoding)
    store = place.check()
    assert store.features.shape == (10, COUNTS[views], 3)
    assert (result.encoded.computed, result.encoded.passes) == (10, passes)


def test_damaged_photos_among_views_cost_nobody_else_a_vector(tmp_path: Path) -> None:
    place = Place.drawn(tmp_path, 10)
    reasons = spoil(place)
    encoding = replace(ENCODING, views="mirror")
    result = place.extract(encoding=encoding)
    assert result.failed == reasons
    assert place.check().features.shape == (7, 2, 3)
    # And with nothing changed, nothing is computed.
    assert place.extract(encoding=encoding).encoded.computed == 0


def test_views_are_kept_apart_from_whole_photos(tmp_path: Path) -> None:
    place = Place.drawn(tmp_path, 3)
    place.extract()
    assert place.extract(encoding=replace(ENCODING, views="mirror")).known == 0
    assert place.check().features.shape == (3, 2, 3)
    assert place.extract().known == 3
    assert place.check().features.shape == (3, 3)
