from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.features.store import FeatureStore, write_store
from tests.conftest import FEATURE_SPEC
from tests.support.store import ALL, FAILED, IDS, PHOTOS, vectors, write


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("shape", [(6,), (4, 6)])
def test_a_store_is_read_back_as_it_was_written(
    tmp_path: Path, dtype: str, shape: tuple[int, ...]
) -> None:
    pooling = "average" if len(shape) == 1 else "grid"
    feature_spec = replace(FEATURE_SPEC, dtype=dtype, pooling=pooling)
    stored = vectors(*shape).astype(dtype)
    path = tmp_path / "features.h5"
    rows = [([6, 0, 3], stored[[6, 0, 3]]), ([1, 2, 4, 5, 7], stored[[1, 2, 4, 5, 7]])]
    fingerprint = write_store(path, feature_spec, PHOTOS, FAILED, rows)
    store = FeatureStore.open(path)
    assert store.image_ids == IDS
    assert store.failed == FAILED
    assert (store.feature_spec, store.shape, store.fingerprint) == (
        feature_spec,
        shape,
        fingerprint,
    )
    assert store.features.dtype == dtype
    assert np.array_equal(store.features, stored)
    read = store.read(["犬.jpg", "9.jpg", "犬.jpg"])
    assert read.dtype == np.float32
    positions = [IDS.index("犬.jpg"), IDS.index("9.jpg"), IDS.index("犬.jpg")]
    assert np.array_equal(read, stored[positions].astype(np.float32))


def test_every_float16_number_is_read_as_it_is(tmp_path: Path) -> None:
    numbers = np.arange(2**16, dtype=np.uint16).view(np.float16)
    path, spec = tmp_path / "features.h5", replace(FEATURE_SPEC, dtype="float16")
    write_store(path, spec, {"0.jpg": "a"}, {}, [([0], numbers[None])])
    store = FeatureStore.open(path)
    expected = numbers.astype(np.float32)[None]
    np.testing.assert_array_equal(store.read(["0.jpg"]), expected)
    sampled = store.sample_views(["0.jpg"], np.random.default_rng(0))
    np.testing.assert_array_equal(sampled, expected)


def test_equal_input_in_any_order_gives_equal_bytes(tmp_path: Path) -> None:
    first = write(tmp_path / "1.h5")
    stored = vectors(6)
    second = write(
        tmp_path / "2.h5",
        photos=dict(reversed(PHOTOS.items())),
        failed=dict(reversed(FAILED.items())),
        rows=[([row], stored[[row]]) for row in reversed(range(len(IDS)))],
    )
    assert first.read_bytes() == second.read_bytes()


def test_the_fingerprint_covers_the_spec_and_the_photos(tmp_path: Path) -> None:
    other_photo = PHOTOS | {"a.jpg": "0" * 64}
    other_name = {("z.jpg" if name == "a.jpg" else name): sha for name, sha in PHOTOS.items()}
    changes: list[dict[str, Any]] = [
        {},
        {"photos": other_photo},
        {"photos": other_name},
        {"feature_spec": replace(FEATURE_SPEC, decoding="otherwise")},
    ]
    fingerprints = {
        FeatureStore.open(write(tmp_path / "a.h5", **change)).fingerprint for change in changes
    }
    assert len(fingerprints) == len(changes)
    assert FeatureStore.open(write(tmp_path / "a.h5", failed={})).fingerprint in fingerprints


def test_a_store_without_failures(tmp_path: Path) -> None:
    assert FeatureStore.open(write(tmp_path / "a.h5", failed={})).failed == {}


def test_the_vectors_are_memory_mapped_read_only(tmp_path: Path) -> None:
    store = FeatureStore.open(write(tmp_path / "a.h5"))
    assert isinstance(store.features, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        store.features[0, 0] = 1


def test_reading_a_failed_photo_raises_key_error(tmp_path: Path) -> None:
    store = FeatureStore.open(write(tmp_path / "a.h5"))
    with pytest.raises(KeyError, match=r"kaputt\.jpg"):
        store.read(["kaputt.jpg"])


@pytest.mark.parametrize(
    "positions",
    [
        [ALL[:-1]],
        [ALL, [3]],
        [ALL[:-1], [3]],
        [[0, 0, *ALL[2:]]],
        [[*ALL[:-1], len(ALL)]],
        [],
    ],
)
def test_a_missing_or_repeated_row_leaves_no_file(
    tmp_path: Path, positions: list[list[int]]
) -> None:
    rows = [(chunk, np.ones((len(chunk), 6), "f4")) for chunk in positions]
    with pytest.raises((AssertionError, TypeError, OSError)):
        write(tmp_path / "a.h5", rows=rows)
    assert list(tmp_path.iterdir()) == []


def test_vectors_of_another_length_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write(
            tmp_path / "a.h5",
            rows=[(ALL[:4], vectors(6)[:4]), (ALL[4:], np.ones((len(ALL) - 4, 5), "f4"))],
        )
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_store(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5")
    original = path.read_bytes()
    with pytest.raises(AssertionError, match="left out"):
        write(path, rows=[])
    assert path.read_bytes() == original
