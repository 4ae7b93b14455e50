import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.features.decoding.probe import decoding_sha256
from pipeline.features.feature_spec import DECODING, POOLINGS, EncoderConfig, read_encoder_config
from pipeline.files import write_json
from tests.conftest import FEATURE_SPEC, change_json, slow_imports

CONFIG = EncoderConfig(
    format_version=2,
    encoder=FEATURE_SPEC.encoder,
    input_size=FEATURE_SPEC.input_size,
    weights_source="random, seed 0",
    weights_sha256=FEATURE_SPEC.weights_sha256,
    preprocessing=FEATURE_SPEC.preprocessing,
    preprocessing_sha256=FEATURE_SPEC.preprocessing_sha256,
    graphs_sha256={name: [f"{name} 1", f"{name} 2"] for name in POOLINGS},
    software={"keras": "3.15.1"},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_json(tmp_path / "encoder.json", asdict(CONFIG))
    return tmp_path / "encoder.json"


@pytest.mark.parametrize("field", asdict(FEATURE_SPEC))
def test_the_fingerprint_changes_with_each_field(field: str) -> None:
    value = asdict(FEATURE_SPEC)[field]
    other: Any = value + 1 if isinstance(value, int) else value + "x"
    assert replace(FEATURE_SPEC, **{field: other}).fingerprint != FEATURE_SPEC.fingerprint
    assert replace(FEATURE_SPEC, **{field: value}).fingerprint == FEATURE_SPEC.fingerprint


def test_an_encoder_config_is_read_back_and_gives_a_feature_spec(path: Path) -> None:
    assert read_encoder_config(path) == CONFIG
    feature_spec = read_encoder_config(path).feature_spec("whole", "grid", 2, "float16")
    assert feature_spec == replace(
        FEATURE_SPEC,
        graph_sha256="grid 2",
        decoding=DECODING,
        decoding_sha256=decoding_sha256("whole"),
        pooling="grid",
        scales=2,
        dtype="float16",
    )


def test_more_scales_than_the_network_has_are_refused() -> None:
    with pytest.raises(InputError, match=r"extract\.scales is 3, but MobileNet has only 2: set it"):
        CONFIG.feature_spec("whole", "grid", 3, "float16")


def test_reading_an_encoder_config_imports_no_keras(path: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from pipeline.features.feature_spec import read_encoder_config\n"
        f"print(read_encoder_config(Path({str(path)!r})).encoder)"
    )
    assert slow_imports(code) == ("MobileNet", ["PIL", "numpy"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 3}, "has format version 3"),
        ({"more": 1}, "has another format version"),
        ({"encoder": ["MobileNet"]}, "has another format version"),
        ({"encoder": 3}, "has another format version"),
        ({"input_size": "32"}, "has another format version"),
        ({"input_size": 32.5}, "has another format version"),
        ({"input_size": 1_000_000}, ": input_size is 1000000, not 32 to 4096"),
        ({"input_size": 0}, ": input_size is 0, not 32 to 4096"),
        ({"graphs_sha256": {"more": ["x"]}}, ": graphs_sha256 does not have lists"),
        ({"graphs_sha256": {"grid": []}}, ": graphs_sha256 does not have lists"),
        ({"graphs_sha256": {"grid": [1]}}, ": graphs_sha256 does not have lists"),
        ({"graphs_sha256": {"grid": "x"}}, ": graphs_sha256 does not have lists"),
    ],
)
def test_a_config_with_other_keys_types_or_version_is_refused(
    path: Path, change: dict[str, object], message: str
) -> None:
    change_json(path, change)
    with pytest.raises(
        InputError, match=rf"{re.escape(str(path))} ?{message}.*: run `dvc repro enc"
    ):
        read_encoder_config(path)


def test_an_absent_incomplete_or_unreadable_config_is_refused(path: Path) -> None:
    path.write_text("{")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        read_encoder_config(path)
    write_json(path, {"encoder": "MobileNet"})
    with pytest.raises(InputError, match="another format version: run `dvc repro encoder`"):
        read_encoder_config(path)
    path.unlink()
    with pytest.raises(InputError, match=r"is not there: run `dvc repro encoder`"):
        read_encoder_config(path)


@pytest.mark.parametrize(
    ("changes", "is_valid"),
    [
        ({}, True),
        ({"pooling": "quarters", "scales": 3, "views": "crops", "dtype": "float16"}, True),
        ({"pooling": "pyramid"}, False),
        ({"scales": 0}, False),
        ({"scales": "2"}, False),
        ({"input_size": 1_000_000}, False),
        ({"views": []}, False),
        ({"dtype": "float64"}, False),
    ],
)
def test_a_spec_from_a_file_may_be_invalid(changes: dict[str, Any], is_valid: bool) -> None:
    assert replace(FEATURE_SPEC, **changes).is_valid == is_valid
