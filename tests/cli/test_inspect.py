import os
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from pipeline.cli.main import main
from pipeline.datasets.caption_table import write_caption_table
from pipeline.features.store import FeatureStore, write_store
from pipeline.text.vocabulary import Vocabulary
from tests.conftest import FEATURE_SPEC, copied_artifacts

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


def test_strange_text_in_a_store_is_printed_escaped(tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    failed = {"\u202ed.jpg": "\x1b[2J\nfine"}
    write_store(
        path, FEATURE_SPEC, PHOTOS, failed, [([0, 1, 2], VECTORS.astype(FEATURE_SPEC.dtype))]
    )
    result = inspect(path)
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == r"  failed: \u202ed.jpg: \x1b[2J\nfine"


def test_a_caption_table_is_checked_and_described(tmp_path: Path) -> None:
    path = tmp_path / "captions.parquet"
    rows = [
        (f"{photo}.jpg", split, 0, "A dog.", "a dog", 2)
        for photo, split in enumerate(["train", "train", "dev"])
    ]
    columns = ["image_id", "split", "caption_index", "raw", "text", "n_words"]
    write_caption_table(path, pd.DataFrame(rows, columns=columns), {"clean": {"style": "\u202e"}})
    first, *lines = inspect(path).output.splitlines()
    assert first == f"{path}: sound"
    assert "  train                 2 photos, 2 captions" in lines
    assert "  words a caption       2 to 2, mean 2.0" in lines
    assert r'  clean                 {"style": "\u202e"}' in lines
    path.write_bytes(path.read_bytes()[:-1])
    result = inspect(path)
    assert (result.exit_code, len(result.output.splitlines())) == (1, 1)


def test_a_vocabulary_is_checked_and_described(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.json"
    Vocabulary.build(["a dog", "a \x1b[2J"], 1, "captions").save(path)
    first, *lines = inspect(path).output.splitlines()
    assert first == f"{path}: sound"
    assert "  words                 3" in lines
    assert r"  most frequent         a \x1b[2J dog" in lines
    path.write_text(path.read_text("utf-8").replace("dog", "cat"), "utf-8")
    result = inspect(path)
    assert result.exit_code == 1
    assert "does not match its own fingerprint" in result.output


def test_the_model_and_the_detector_are_checked_against_what_lies_beside(
    artifacts: Path, tmp_path: Path
) -> None:
    for path in (artifacts / "model", artifacts / "model/model.json"):
        first, *lines = inspect(path).output.splitlines()
        assert first == f"{path}: fits the vocabulary beside it; its weights were not read"
        assert "  decoder               merge" in lines
        assert "  seed 2026             epoch 1 of 1 kept; overfitted" in lines
    first, *lines = inspect(artifacts / "detector.h5").output.splitlines()
    assert first == (
        f"{artifacts / 'detector.h5'}: sound, and fits the vocabulary and the model beside it"
    )
    first, *lines = inspect(artifacts / "neighbours.h5").output.splitlines()
    assert first == (
        f"{artifacts / 'neighbours.h5'}: sound, and fits the vocabulary, the detector and the "
        "model beside it"
    )
    assert "  captions              12" in lines
    folder = copied_artifacts(artifacts, tmp_path / "copy")
    Vocabulary.build(["another word"], 1, "captions").save(tmp_path / "vocabulary.json")
    (tmp_path / "vocabulary.json").replace(folder / "vocabulary.json")
    for name in ("model", "detector.h5", "neighbours.h5"):
        result = inspect(folder / name)
        assert result.exit_code == 1
        assert "was trained with another vocabulary" in result.output


CHOICES = (
    "give features.h5, detector.h5, neighbours.h5, captions.parquet, vocabulary.json or the folder "
    "model"
)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("README.md", "is nothing that inspect reads"),
        ("folder", "is nothing that inspect reads"),
        ("features.h5", "is not an HDF5 file"),
        ("absent.h5", "is not there"),
        ("pipe.h5", "is nothing that inspect reads"),
        ("encoder.weights.h5", "holds a network's weights, which inspect does not read"),
    ],
)
def test_what_inspect_does_not_read_is_refused_with_what_it_reads(
    tmp_path: Path, name: str, message: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "README.md").write_text("text")
    (tmp_path / "features.h5").write_text("text")
    h5py.File(tmp_path / "encoder.weights.h5", "w").close()
    os.mkfifo(tmp_path / "pipe.h5")
    result = inspect(tmp_path / name)
    assert result.exit_code == 1
    (line,) = result.output.splitlines()
    assert line.startswith(f"Error: {tmp_path / name} {message}: {CHOICES}")


def test_a_runs_captions_are_refused_with_the_command_that_scores_them(tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    path.touch()
    assert inspect(path).output == (
        f"Error: {path} holds a run's captions: score it with `caption score`\n"
    )


def test_a_file_that_is_not_a_store_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("no HDF5")
    for name in ("text.h5", "absent.h5"):
        result = inspect(tmp_path / name)
        assert result.exit_code == 1
        assert name in result.output
        assert len(result.output.splitlines()) == 1
