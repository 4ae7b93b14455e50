import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.features.feature_spec import EncoderConfig, read_encoder_config
from pipeline.features.photos import DECODING
from pipeline.files import write_json
from tests.conftest import ENCODING, change_json, slow_imports

DESCRIPTION = EncoderConfig(
    format_version=1,
    encoder=ENCODING.encoder,
    input_size=ENCODING.input_size,
    weights_source="random, seed 0",
    weights_sha256=ENCODING.weights_sha256,
    preprocessing=ENCODING.preprocessing,
    preprocessing_sha256=ENCODING.preprocessing_sha256,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_json(tmp_path / "encoder.json", asdict(DESCRIPTION))
    return tmp_path / "encoder.json"


@pytest.mark.parametrize("field", asdict(ENCODING))
def test_the_fingerprint_changes_with_each_field(field: str) -> None:
    value = asdict(ENCODING)[field]
    other: Any = value + 1 if isinstance(value, int) else value + "x"
    assert replace(ENCODING, **{field: other}).fingerprint != ENCODING.fingerprint
    assert replace(ENCODING, **{field: value}).fingerprint == ENCODING.fingerprint


def test_a_description_comes_back_and_becomes_an_encoding(path: Path) -> None:
    assert read_encoder_config(path) == DESCRIPTION
    encoding = read_encoder_config(path).encoding("whole", "grid", 2, "float16")
    assert encoding == replace(
        ENCODING, decoding=DECODING, pooling="grid", scales=2, dtype="float16"
    )


def test_reading_one_imports_no_keras(path: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from pipeline.features.feature_spec import read_encoder\n"
        f"print(read_encoder(Path({str(path)!r})).encoder)"
    )
    assert slow_imports(code) == ("MobileNet", ["PIL", "numpy"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format_version": 2}, "is of format version 2"),
        ({"more": 1}, "is of another format version"),
        ({"encoder": ["MobileNet"]}, "is of another format version"),
        ({"encoder": 3}, "is of another format version"),
        ({"input_size": "32"}, "is of another format version"),
        ({"input_size": 32.5}, "is of another format version"),
    ],
)
def test_a_description_of_something_else_is_refused(
    path: Path, change: dict[str, object], words: str
) -> None:
    change_json(path, change)
    with pytest.raises(InputError, match=rf"{re.escape(str(path))} {words}: run `dvc repro enc"):
        read_encoder_config(path)


def test_an_absent_short_or_unreadable_description_is_refused(path: Path) -> None:
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
    ("changes", "known"),
    [
        ({}, True),
        ({"pooling": "quarters", "scales": 3, "views": "crops", "dtype": "float16"}, True),
        ({"pooling": "pyramid"}, False),
        ({"scales": 0}, False),
        ({"scales": "2"}, False),
        ({"views": []}, False),
        ({"dtype": "float64"}, False),
    ],
)
def test_an_encoding_of_a_file_may_say_what_there_is_not(
    changes: dict[str, Any], known: bool
) -> None:
    assert replace(ENCODING, **changes).known == known
