import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.captioner.training_artifacts import STAGES, TrainingArtifacts
from pipeline.errors import InputError
from pipeline.text.vocabulary import Vocabulary
from tests.support.captioner import (
    CAPTIONS,
    PHOTOS,
    make_store,
    make_vocabulary,
    write_captions,
    write_extract_json,
)

REQUIRED = ("captions.parquet", "vocabulary.json", "features.h5")
DEV = [("dev-0.jpg", "a dog"), ("dev-1.jpg", "a cat"), ("dev-1.jpg", "two cats")]
FAILED = [("failed.jpg", "a bed"), ("failed.jpg", "a big bed")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write captions, features and vocabulary; one training photo has no features."""
    folder = tmp_path / "artifacts"
    write_captions(folder / "captions.parquet", {"train": [*CAPTIONS, *FAILED], "dev": DEV})
    make_store(folder / "features.h5", sorted([*PHOTOS, *dict(DEV)]))
    table = TrainingArtifacts.open(folder).table
    Vocabulary.build(table.texts("train"), 1, table.fingerprint).save(folder / "vocabulary.json")
    write_extract_json(folder, {"0.jpg": "photos/0.jpg"})
    return folder


def test_the_folder_is_opened_by_its_absolute_path(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    assert TrainingArtifacts.open(Path("artifacts"), *REQUIRED).folder == folder


@pytest.mark.parametrize(("name", "stage"), STAGES.items())
def test_a_missing_file_is_reported_with_the_stage_that_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, stage: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        TrainingArtifacts.open(Path("artifacts"), name)
    assert str(error.value) == (
        f"{tmp_path / 'artifacts'} has no {name}: run `dvc repro {stage}`, in a clone "
        "`dvc pull`, or name the folder of a finished run"
    )


def test_all_missing_files_are_reported_in_one_line_and_each_stage_once(folder: Path) -> None:
    (folder / "vocabulary.json").unlink()
    (folder / "extract.json").unlink()
    (folder / "features.h5").unlink()
    with pytest.raises(InputError) as error:
        TrainingArtifacts.open(folder, *REQUIRED, "extract.json")
    assert str(error.value) == (
        f"{folder} has no vocabulary.json, features.h5, extract.json: run `dvc repro tokenize "
        "extract`, in a clone `dvc pull`, or name the folder of a finished run"
    )


def test_a_folder_in_place_of_a_file_counts_as_missing(tmp_path: Path) -> None:
    (tmp_path / "captions.parquet").mkdir()
    with pytest.raises(InputError, match=r"has no captions\.parquet: run `dvc repro clean`"):
        TrainingArtifacts.open(tmp_path, "captions.parquet")


def test_captions_of_photos_without_features_are_left_out_and_counted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifacts = TrainingArtifacts.open(folder)
    assert sorted(artifacts.captions("train")) == sorted(CAPTIONS)
    assert capsys.readouterr().out == (
        "train: 2 captions of failed photos left out (failed.jpg): "
        f"{folder.name}/extract.json lists the reasons\n"
    )
    assert artifacts.captions("dev") == DEV
    assert capsys.readouterr().out == ""


def test_references_are_the_raw_captions_of_photos_with_features(folder: Path) -> None:
    artifacts = TrainingArtifacts.open(folder)
    references = artifacts.references("train")
    assert sorted(references) == sorted(dict(CAPTIONS))
    assert references["2.jpg"] == ["a big dog runs on grass .", "dog ."]
    assert artifacts.references("dev") == {
        "dev-0.jpg": ["a dog ."],
        "dev-1.jpg": ["a cat .", "two cats ."],
    }


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_photos_with_features_are_refused(folder: Path, count: int) -> None:
    make_store(folder / "features.h5", sorted([*PHOTOS, *sorted(dict(DEV))[:count]]))
    artifacts = TrainingArtifacts.open(folder)
    assert len(artifacts.captions("train")) == len(CAPTIONS)
    with pytest.raises(InputError) as error:
        artifacts.captions("dev")
    assert str(error.value) == (
        "fewer than 2 dev photos have both captions and features: "
        f"{folder / 'captions.json'} and {folder / 'extract.json'} list the reasons"
    )


def test_a_split_without_captions_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="fewer than 2 test photos have both captions and feat"):
        TrainingArtifacts.open(folder).captions("test")


def test_a_vocabulary_of_other_captions_is_refused(folder: Path) -> None:
    assert TrainingArtifacts.open(folder).vocabulary.words
    make_vocabulary().save(folder / "vocabulary.json")
    with pytest.raises(
        InputError, match=r"was built from other captions .*dvc repro tokenize"
    ) as e:
        _ = TrainingArtifacts.open(folder).vocabulary
    assert str(e.value).startswith(str(folder / "vocabulary.json"))


def test_image_paths_are_those_of_extract_json(folder: Path) -> None:
    assert TrainingArtifacts.open(folder).image_paths == {"0.jpg": Path("photos/0.jpg")}


@pytest.mark.parametrize(
    "values", [{}, {"paths": None}, {"paths": ["0.jpg"]}, {"paths": {"0.jpg": 1}}, []]
)
def test_invalid_image_paths_are_refused(folder: Path, values: Any) -> None:
    path = folder / "extract.json"
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"run `dvc repro extract`$") as error:
        _ = TrainingArtifacts.open(folder).image_paths
    assert str(error.value).startswith(str(path))
