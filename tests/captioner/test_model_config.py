import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.captioner.model_config import DecoderConfig, Member, ModelConfig, read_model_config
from pipeline.errors import InputError
from pipeline.text.vocabulary import Vocabulary
from tests.conftest import FEATURE_SPEC, change_json, slow_imports

VOCABULARY = Vocabulary.build(["a dog runs", "a cat sleeps"], 1, "captions")
MODEL = ModelConfig(
    decoder=DecoderConfig("merge", len(VOCABULARY), (4, 6), 8, 16, 0.5, 0.25),
    members=(
        Member(3, "c" * 64, {"epochs": 3, "best": {"epoch": 2, "validation_loss": 1.5}}),
        Member(1, "d" * 64, {"epochs": 4, "best": {"epoch": 4, "validation_loss": 1.25}}),
    ),
    feature_spec=FEATURE_SPEC,
    vocabulary_fingerprint=VOCABULARY.fingerprint,
    metadata={"captions": "these"},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    MODEL.write(tmp_path / "model.json")
    return tmp_path / "model.json"


def refused(path: Path, problem: str, vocabulary: Vocabulary = VOCABULARY) -> None:
    with pytest.raises(InputError, match=rf"{problem}.*: run `dvc repro train`") as error:
        read_model_config(path, vocabulary)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_model_json_reads_as_it_was_written(path: Path) -> None:
    assert read_model_config(path, VOCABULARY) == MODEL


def test_equal_configs_give_equal_bytes(path: Path, tmp_path: Path) -> None:
    read_model_config(path, VOCABULARY).write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_reading_model_json_imports_no_keras() -> None:
    _, modules = slow_imports("import pipeline.captioner.model_config")
    assert modules == ["PIL", "numpy"]


def test_another_vocabulary_is_refused(path: Path) -> None:
    other = replace(VOCABULARY, words=VOCABULARY.words[::-1])
    assert len(other) == len(VOCABULARY)
    refused(path, "was trained with another vocabulary", other)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"format_version": 2}, "another format version"),
        ({"format_version": None}, "another format version"),
        ({"decoder": None}, "damaged"),
        ({"decoder": []}, "damaged"),
        ({"decoder": {"feature_shape": None}}, "damaged"),
        ({"decoder": {"heads": 8}}, "damaged"),
        ({"decoder": {"vocabulary_size": 99}}, "was trained with another vocabulary"),
        ({"feature_spec": None}, "damaged"),
        ({"feature_spec": {"more": 1}}, "damaged"),
        ({"feature_spec": {"dtype": "object"}}, "damaged"),
        ({"feature_spec": {"views": "many"}}, "damaged"),
        ({"members": None}, "damaged"),
        ({"members": []}, "damaged"),
        ({"members": [{"seed": 1}]}, "damaged"),
        ({"members": [{"seed": 1, "weights_sha256": "c", "metadata": {}}] * 2}, "damaged"),
        ({"members": [{"seed": [1], "weights_sha256": "c", "metadata": {}}]}, "damaged"),
        ({"members": [{"seed": 1, "weights_sha256": "c", "metadata": None}]}, "damaged"),
        ({"metadata": None}, "damaged"),
        ({"vocabulary": None}, "was trained with another vocabulary"),
    ],
)
def test_invalid_values_are_refused(path: Path, values: dict[str, Any], problem: str) -> None:
    change_json(path, values)
    refused(path, problem)


@pytest.mark.parametrize(
    "key", ["decoder", "members", "feature_spec", "vocabulary", "metadata", "format_version"]
)
def test_a_missing_key_is_refused(path: Path, key: str) -> None:
    values = json.loads(path.read_text())
    del values[key]
    path.write_text(json.dumps(values))
    refused(path, "another format version" if key == "format_version" else key)


@pytest.mark.parametrize("field", asdict(MODEL.decoder))
def test_a_missing_key_of_the_decoder_is_refused(path: Path, field: str) -> None:
    values = json.loads(path.read_text())
    del values["decoder"][field]
    path.write_text(json.dumps(values))
    refused(path, rf"damaged .*{field}")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff"])
def test_a_file_that_is_not_json_is_refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    refused(path, "JSON")


def test_a_missing_file_is_refused(path: Path) -> None:
    path.unlink()
    refused(path, "is not there")


def test_features_with_another_spec_are_refused() -> None:
    path = Path("artifacts/features.h5")
    MODEL.check_feature_spec(FEATURE_SPEC, path)
    other = replace(FEATURE_SPEC, pooling="grid", dtype="float16")
    with pytest.raises(
        InputError, match=r"features\.h5 and the model .*other pooling, dtype.*run `dvc repro`"
    ):
        MODEL.check_feature_spec(other, path)


BEST = {"epoch": 2, "validation_loss": 1.5, "validation_cider_d": 9}
TRAINING: dict[str, Any] = {"epochs": 3, "best": BEST, "stopped": "overfitted"}


def with_metadata(metadata: dict[str, Any], training: dict[str, Any]) -> ModelConfig:
    return replace(MODEL, members=(Member(3, "c" * 64, training),), metadata=metadata)


def test_metadata_for_reports_are_complete() -> None:
    with_metadata({"params": {"max_words": 9}}, TRAINING).check_metadata(Path("model.json"))


@pytest.mark.parametrize(
    ("metadata", "training"),
    [
        ({"params": None}, {}),
        ({"params": []}, {}),
        ({"params": {"max_words": "9"}}, {}),
        ({"params": {"max_words": 10**9}}, {}),
        ({}, {}),
        ({"params": {"max_words": 9}}, {"best": None}),
        ({"params": {"max_words": 9}}, {"best": BEST | {"epoch": 2.5}}),
        ({"params": {"max_words": 9}}, {"best": BEST | {"validation_loss": "1.5"}}),
        ({"params": {"max_words": 9}}, {"best": BEST | {"validation_loss": 10**400}}),
        ({"params": {"max_words": 9}}, {"best": {"epoch": 2}}),
        ({"params": {"max_words": 9}}, {"epochs": None}),
        ({"params": {"max_words": 9}}, {"stopped": 7}),
    ],
)
def test_metadata_of_other_types_are_refused_before_a_report_needs_them(
    metadata: dict[str, Any], training: dict[str, Any]
) -> None:
    config = with_metadata(metadata, TRAINING | training)
    with pytest.raises(InputError, match=r"model\.json is damaged .metadata: .*dvc repro train"):
        config.check_metadata(Path("model.json"))
