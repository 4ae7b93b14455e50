from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.features.store import FeatureStore, write_store
from tests.conftest import ENCODING
from tests.support.store import ALL, FAILED, IDS, PHOTOS, vectors, write


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("shape", [(6,), (4, 6)])
def test_a_store_comes_back_as_it_was(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    pooling = "average" if len(shape) == 1 else "grid"
    encoding = replace(ENCODING, dtype=dtype, pooling=pooling)
    stored = vectors(*shape).astype(dtype)
    path = tmp_path / "features.h5"
    rows = [([6, 0, 3], stored[[6, 0, 3]]), ([1, 2, 4, 5, 7], stored[[1, 2, 4, 5, 7]])]
    fingerprint = write_store(path, encoding, PHOTOS, FAILED, rows)
    store = FeatureStore.open(path)
    assert store.image_ids == IDS
    assert store.failed == FAILED
    assert (store.encoding, store.shape, store.fingerprint) == (encoding, shape, fingerprint)
    assert store.features.dtype == dtype
    assert np.array_equal(store.features, stored)
    some = store.read(["犬.jpg", "9.jpg", "犬.jpg"])
    assert some.dtype == np.float32
    places = [IDS.index("犬.jpg"), IDS.index("9.jpg"), IDS.index("犬.jpg")]
    assert np.array_equal(some, stored[places].astype(np.float32))


def test_equal_input_gives_equal_bytes_in_whatever_order(tmp_path: Path) -> None:
    first = write(tmp_path / "1.h5")
    stored = vectors(6)
    second = write(
        tmp_path / "2.h5",
        photos=dict(reversed(PHOTOS.items())),
        failed=dict(reversed(FAILED.items())),
        rows=[([place], stored[[place]]) for place in reversed(range(len(IDS)))],
    )
    assert first.read_bytes() == second.read_bytes()


def test_the_fingerprint_is_of_the_encoding_and_the_photos(tmp_path: Path) -> None:
    other_photo = PHOTOS | {"a.jpg": "0" * 64}
    other_name = {("z.jpg" if name == "a.jpg" else name): sha for name, sha in PHOTOS.items()}
    changes: list[dict[str, Any]] = [
        {},
        {"photos": other_photo},
        {"photos": other_name},
        {"encoding": replace(ENCODING, decoding="otherwise")},
    ]
    found = {
        FeatureStore.open(write(tmp_path / "a.h5", **change)).fingerprint for change in changes
    }
    assert len(found) == len(changes)
    assert FeatureStore.open(write(tmp_path / "a.h5", failed={})).fingerprint in found


def test_no_failures_are_no_trouble(tmp_path: Path) -> None:
    assert FeatureStore.open(write(tmp_path / "a.h5", failed={})).failed == {}


def test_the_vectors_are_mapped_read_only(tmp_path: Path) -> None:
    store = FeatureStore.open(write(tmp_path / "a.h5"))
    assert isinstance(store.features, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        store.features[0, 0] = 1


def test_a_photo_without_a_vector_is_no_row(tmp_path: Path) -> None:
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
def test_a_row_left_out_or_written_twice_leaves_no_file(
    tmp_path: Path, positions: list[list[int]]
) -> None:
    rows = [(places, np.ones((len(places), 6), "f4")) for places in positions]
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


def test_a_writer_that_fails_leaves_the_old_store(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5")
    before = path.read_bytes()
    with pytest.raises(AssertionError, match="left out"):
        write(path, rows=[])
    assert path.read_bytes() == before
