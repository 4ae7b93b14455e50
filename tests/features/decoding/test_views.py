from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pipeline.errors import InputError
from pipeline.features.decoding.photos import decode_photo
from pipeline.features.decoding.views import VIEWS, View, merge_views
from pipeline.features.store import FeatureStore
from tests.conftest import FEATURE_SPEC, encoded
from tests.support.extraction import MeanColourEngine, Workspace, add_bad_photos
from tests.support.store import IDS, vectors, write

SIZE = 32
COUNTS = {"whole": 1, "mirror": 2, "crops": 12}


def gradient(width: int = 96, height: int = 64) -> bytes:
    """Draw red increasing from 0 at the left to 240 at the right, and green from top to bottom."""
    right = np.linspace(0, 240, width)[None, :].repeat(height, axis=0)
    down = np.linspace(0, 240, height)[:, None].repeat(width, axis=1)
    pixels = np.stack([right, down, np.zeros_like(right)], axis=-1)
    return encoded(Image.fromarray(pixels.astype(np.uint8)), "PNG")


def decoded(views: str) -> npt.NDArray[np.uint8]:
    return decode_photo(gradient(), SIZE, 10_000, views)


# Decoding.


@pytest.mark.parametrize("views", VIEWS)
def test_a_photo_is_decoded_to_all_its_views_starting_with_the_whole_photo(views: str) -> None:
    images = decoded(views)
    assert images.shape == (COUNTS[views], SIZE, SIZE, 3)
    assert images.dtype == np.uint8
    assert replace(FEATURE_SPEC, views=views).view_count == COUNTS[views]
    assert VIEWS[views][0] == View()
    np.testing.assert_array_equal(images[:1], decode_photo(gradient(), SIZE, 10_000))


@pytest.mark.parametrize("views", ["mirror", "crops"])
def test_every_second_view_is_the_mirror_image_of_the_one_before(views: str) -> None:
    images = decoded(views)
    np.testing.assert_array_equal(images[1::2], images[::2, :, ::-1])
    assert not np.array_equal(images[1::2], images[::2])


def edges(view: npt.NDArray[np.uint8]) -> list[float]:
    """Return the edges of a view of the gradient, as shares: left, top, right and bottom."""
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
    # The centre of an edge pixel is half a pixel of 32 from the edge.
    np.testing.assert_allclose(np.array(parts), np.array(expected, float), atol=0.03)


# Merging views.


def test_pooled_views_are_averaged() -> None:
    views = vectors(3, 6)
    np.testing.assert_allclose(
        merge_views(views), (views[:, 0] + views[:, 1] + views[:, 2]) / 3, 1e-5
    )
    assert merge_views(views).dtype == np.float32


def test_for_grids_the_first_view_is_returned() -> None:
    views = vectors(3, 4, 6)
    np.testing.assert_array_equal(merge_views(views), views[:, 0])


# Storing views.


def store_of(path: Path, *shape: int, views: str = "mirror") -> FeatureStore:
    """Write and open a store whose photos have vectors of a shape."""
    rows = [(list(range(len(IDS))), vectors(*shape))]
    feature_spec = replace(
        FEATURE_SPEC, views=views, pooling="grid" if len(shape) > 2 else "average"
    )
    return FeatureStore.open(write(path, feature_spec=feature_spec, rows=rows))


@pytest.mark.parametrize("shape", [(6,), (4, 6)], ids=["pooled", "grid"])
def test_a_store_holds_every_view_and_reads_them_merged(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    store = store_of(tmp_path / "features.h5", 2, *shape)
    stored = vectors(2, *shape)
    assert store.shape == shape
    np.testing.assert_array_equal(store.features, stored)
    store.verify()
    image_ids = [IDS[5], IDS[0], IDS[5]]
    np.testing.assert_array_equal(store.read(image_ids), merge_views(stored[[5, 0, 5]]))


@pytest.mark.parametrize("shape", [(6,), (4, 6)], ids=["pooled", "grid"])
def test_views_are_sampled_with_equal_probability(tmp_path: Path, shape: tuple[int, ...]) -> None:
    store = store_of(tmp_path / "features.h5", 2, *shape)
    stored = vectors(2, *shape)
    rows = [5, 0, 5, 3] * 50
    sampled = store.sample_views([IDS[row] for row in rows], np.random.default_rng(1))
    assert sampled.shape == (200, *shape)
    assert sampled.dtype == np.float32
    chosen = [
        [np.array_equal(vector, stored[row, view]) for view in (0, 1)].index(True)
        for row, vector in zip(rows, sampled, strict=True)
    ]
    assert 70 < sum(chosen) < 130


def test_a_sample_is_determined_by_the_generator(tmp_path: Path) -> None:
    store = store_of(tmp_path / "features.h5", 12, 6, views="crops")
    first, same_seed, other_seed = (
        store.sample_views(IDS, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, same_seed)
    assert not np.array_equal(first, other_seed)
    rng = np.random.default_rng(1)
    np.testing.assert_array_equal(store.sample_views(IDS, rng), first)
    assert not np.array_equal(store.sample_views(IDS, rng), first)


def test_with_one_view_sampling_is_reading(tmp_path: Path) -> None:
    store = store_of(tmp_path / "features.h5", 6, views="whole")
    rng = np.random.default_rng(1)
    np.testing.assert_array_equal(store.sample_views(IDS, rng), store.read(IDS))


@pytest.mark.parametrize("shape", [(6,), (3, 6), (1, 6), (12, 6)])
def test_another_number_of_views_than_the_spec_has_is_refused(
    tmp_path: Path, shape: Sequence[int]
) -> None:
    with pytest.raises(
        InputError, match=r"features\.h5 .*do not have 2 views per photo.*dvc repro"
    ):
        store_of(tmp_path / "features.h5", *shape)


# Extracting views.


@pytest.mark.parametrize(("views", "batch", "passes"), [("mirror", 5, 5), ("crops", 27, 5)])
def test_every_photo_gets_the_vectors_of_its_views(
    tmp_path: Path, views: str, batch: int, passes: int
) -> None:
    workspace = Workspace.drawn(tmp_path, 10)
    feature_spec = replace(FEATURE_SPEC, views=views)
    # A batch size that is not a multiple of the number of views: two photos fit.
    result = workspace.extract(MeanColourEngine(batch_size=batch), feature_spec=feature_spec)
    store = workspace.check()
    assert store.features.shape == (10, COUNTS[views], 3)
    assert (result.stats.computed, result.stats.passes) == (10, passes)


def test_damaged_photos_do_not_affect_the_views_of_others(tmp_path: Path) -> None:
    workspace = Workspace.drawn(tmp_path, 10)
    reasons = add_bad_photos(workspace)
    feature_spec = replace(FEATURE_SPEC, views="mirror")
    result = workspace.extract(feature_spec=feature_spec)
    assert result.failed == reasons
    assert workspace.check().features.shape == (7, 2, 3)
    # Without changes, nothing is encoded again.
    assert workspace.extract(feature_spec=feature_spec).stats.computed == 0


def test_each_choice_of_views_is_cached_separately(tmp_path: Path) -> None:
    workspace = Workspace.drawn(tmp_path, 3)
    workspace.extract()
    assert workspace.extract(feature_spec=replace(FEATURE_SPEC, views="mirror")).cached == 0
    assert workspace.check().features.shape == (3, 2, 3)
    assert workspace.extract().cached == 3
    assert workspace.check().features.shape == (3, 3)
