from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.features import earlier_stores
from pipeline.features.earlier_stores import DamagedRowError, EarlierStores, read_rows
from pipeline.features.store import write_store
from tests.conftest import FEATURE_SPEC

KEYS = [f"{number:064x}" for number in range(1, 8)]
VECTORS = np.arange(1, 22, dtype="f4").reshape(7, 3)


def store(path: Path, *numbers: int) -> Path:
    """Write a store with these photos."""
    photos = {f"{number}.png": KEYS[number] for number in sorted(numbers)}
    rows = [(list(range(len(numbers))), VECTORS[sorted(numbers)])]
    write_store(path, FEATURE_SPEC, photos, {}, rows)
    return path


def stores(*paths: Path) -> EarlierStores:
    return EarlierStores(paths, FEATURE_SPEC.fingerprint)


def read(earlier: EarlierStores, keys: list[str]) -> npt.NDArray[np.float32]:
    """Read vectors; rows that no store has are NaN."""
    filled = np.full((len(keys), 3), np.nan, "f4")
    for positions, vectors in read_rows(earlier.locate(keys), keys):
        filled[positions] = vectors
    return filled


def damage(path: Path, number: int) -> None:
    """Change a vector in the file."""
    data, vector = path.read_bytes(), VECTORS[number].tobytes()
    assert data.count(vector) == 1
    path.write_bytes(data.replace(vector, b"\1" + vector[1:]))


def test_vectors_come_from_the_first_store_that_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(earlier_stores, "_CHUNK", 2)
    earlier = stores(store(tmp_path / "a.h5", 0, 1, 2), store(tmp_path / "b.h5", 2, 3, 5))
    keys = [KEYS[number] for number in (5, 6, 0, 2, 3)]
    expected = VECTORS[[5, 6, 0, 2, 3]].copy()
    expected[1] = np.nan
    assert np.array_equal(read(earlier, keys), expected, equal_nan=True)
    assert earlier.locate(keys)[KEYS[2]][0].path.name == "a.h5"


def test_no_store_is_opened_before_a_vector_is_missing(tmp_path: Path) -> None:
    paths = iter([store(tmp_path / "a.h5", 0), store(tmp_path / "b.h5", 1)])
    earlier = EarlierStores(paths, FEATURE_SPEC.fingerprint)
    assert earlier.locate([]) == {}
    assert list(earlier.locate([KEYS[0]])) == [KEYS[0]]
    assert next(paths).name == "b.h5"


def test_stores_of_another_spec_and_damaged_files_are_no_source(tmp_path: Path) -> None:
    other = replace(FEATURE_SPEC, weights_sha256="c" * 64)
    write_store(tmp_path / "other.h5", other, {"0.png": KEYS[0]}, {}, [([0], VECTORS[:1])])
    (tmp_path / "text.h5").write_text("<html>")
    cut = store(tmp_path / "cut.h5", 0)
    cut.write_bytes(cut.read_bytes()[:-10])
    paths = [tmp_path / name for name in ("other.h5", "text.h5", "cut.h5", "nowhere.h5")]
    assert stores(*paths).locate([KEYS[0]]) == {}


def test_a_damaged_row_is_dropped_and_the_others_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = store(tmp_path / "a.h5", 0, 1, 2)
    damage(path, 1)
    earlier = stores(path)
    keys = KEYS[:3]
    with pytest.raises(DamagedRowError):
        read(earlier, keys)
    earlier.drop_damaged(keys)
    assert capsys.readouterr().out == (
        f"a row of {path} is not as it was written; its photo is encoded again\n"
    )
    assert list(earlier.locate(keys)) == [KEYS[0], KEYS[2]]
    assert np.array_equal(read(earlier, [KEYS[2], KEYS[0]]), VECTORS[[2, 0]])
