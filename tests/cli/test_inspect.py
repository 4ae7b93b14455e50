from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result

from pipeline.cli.main import main
from pipeline.features.store import FeatureStore, write_store
from tests.conftest import FEATURE_SPEC

VECTORS = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
PHOTOS = {f"{name}.jpg": f"{number:064x}" for number, name in enumerate("abc")}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "features.h5"
    failed = {"d\n.jpg": "empty file"}
    write_store(
        path, FEATURE_SPEC, PHOTOS, failed, [([0, 1, 2], VECTORS.astype(FEATURE_SPEC.dtype))]
    )
    return path


def inspect(path: Path) -> Result:
    return CliRunner().invoke(main, ["inspect", str(path)])


def test_a_sound_store_is_described(store: Path) -> None:
    result = inspect(store)
    assert result.exit_code == 0
    first, *lines = result.output.splitlines()
    assert first == f"{store}: sound"
    assert "  photos                3, and 1 that failed" in lines
    assert f"  encoder               {FEATURE_SPEC.encoder}" in lines
    assert f"  fingerprint           {FeatureStore.open(store).fingerprint}" in lines
    assert lines[-1] == "  failed: d\\n.jpg: empty file"


def overwrite_row(path: Path, row: int, value: float) -> None:
    with h5py.File(path, "r+") as file:
        file["features"][row] = value


@pytest.mark.parametrize(("row", "name"), list(enumerate(PHOTOS)))
@pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
def test_a_changed_row_is_reported_with_its_photo(
    store: Path, row: int, name: str, value: float
) -> None:
    overwrite_row(store, row, value)
    result = inspect(store)
    assert result.exit_code == 1
    assert f"{store}: the row of {name} is not as it was written: run `dvc repro" in result.output


@pytest.mark.parametrize(
    ("value", "wrong"), [(0.0, "is all zeros"), (np.nan, "has NaN or infinite numbers")]
)
def test_a_row_that_was_never_right_is_named(tmp_path: Path, value: float, wrong: str) -> None:
    path = tmp_path / "features.h5"
    vectors = VECTORS.astype(FEATURE_SPEC.dtype)
    vectors[1] = value
    write_store(path, FEATURE_SPEC, PHOTOS, {}, [([0, 1, 2], vectors)])
    result = inspect(path)
    assert result.exit_code == 1
    assert f"the row of b.jpg {wrong}" in result.output


def test_a_dataset_stored_in_another_file_is_refused(store: Path, tmp_path: Path) -> None:
    with h5py.File(store, "r+") as file:
        del file["features"]
        file.create_dataset(
            "features", (3, 4), FEATURE_SPEC.dtype, external=[(str(tmp_path / "raw"), 0, 96)]
        )
    result = inspect(store)
    assert result.exit_code == 1
    assert "/features takes its data from another file" in result.output


def test_a_flipped_bit_in_any_byte_of_the_vectors_is_detected(store: Path) -> None:
    content = store.read_bytes()
    data = VECTORS.astype(FEATURE_SPEC.dtype).tobytes()
    start = content.index(data)
    for position in range(start, start + len(data)):
        store.write_bytes(
            content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
        )
        assert inspect(store).exit_code == 1


def test_a_file_that_is_not_a_store_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("no HDF5")
    for name in ("text.h5", "absent.h5"):
        result = inspect(tmp_path / name)
        assert result.exit_code == 1
        assert name in result.output
        assert len(result.output.splitlines()) == 1
