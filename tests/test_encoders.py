import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.backend import keras
from pipeline.errors import InputError
from pipeline.features.encoders import (
    Encoding,
    build_encoder,
    default_input_size,
    describe_encoder,
    preprocessing,
    preprocessing_name,
    preprocessing_sha256,
    read_encoder,
)
from pipeline.features.photos import DECODING
from pipeline.features.weights import load_encoder
from pipeline.files import write_json


@pytest.mark.parametrize(("name", "size"), [("Xception", 299), ("MobileNet", 224)])
def test_the_input_size_is_the_one_keras_gives(name: str, size: int) -> None:
    assert default_input_size(name) == size


def test_every_network_of_keras_is_known() -> None:
    for name in ("InceptionV3", "ResNet50", "ResNet50V2", "VGG16", "ConvNeXtTiny", "NASNetMobile"):
        assert callable(preprocessing(name))
    # EfficientNet scales inside the network.
    assert preprocessing_sha256("EfficientNetB0") == preprocessing_sha256("ConvNeXtTiny")


def test_the_preprocessing_is_keras_own() -> None:
    photos = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)).astype(np.float32)
    scaled = preprocessing("Xception")(photos.copy())
    assert np.array_equal(scaled, keras.applications.xception.preprocess_input(photos.copy()))
    assert np.abs(scaled).max() <= 1
    assert preprocessing_name("Xception") == "keras.applications.xception.preprocess_input"
    assert preprocessing_name("ResNet50") != preprocessing_name("ResNet50V2")


def test_the_digest_of_a_preprocessing_is_of_what_it_does() -> None:
    assert preprocessing_sha256("Xception") == preprocessing_sha256("Xception")
    assert preprocessing_sha256("Xception") == preprocessing_sha256("InceptionV3")
    assert preprocessing_sha256("Xception") != preprocessing_sha256("ResNet50")


@pytest.mark.parametrize(
    "use", [default_input_size, preprocessing_sha256, lambda name: build_encoder(name, 64)]
)
@pytest.mark.parametrize("name", ["Exception", "xception", "preprocess_input", "Model", ""])
def test_an_unknown_network_is_refused_with_the_list(use: Callable[[str], Any], name: str) -> None:
    with pytest.raises(InputError) as caught:
        use(name)
    message = str(caught.value)
    assert message.startswith(f"params.yaml: encoder.name {name!r} is no network")
    assert ", Xception" in message
    assert "\n" not in message


def test_an_input_size_too_small_for_the_network_is_refused() -> None:
    with pytest.raises(InputError, match=r"encoder\.input_size 70 does not fit Xception .*71"):
        build_encoder("Xception", 70)


def test_vectors_are_pooled_or_one_a_place() -> None:
    assert build_encoder("MobileNet", 64).output_shape == (None, 1024)
    assert build_encoder("MobileNet", 64, "grid").output_shape == (None, 4, 1024)


def test_the_mean_over_places_is_the_pooled_vector(tiny_encoder: Path, tmp_path: Path) -> None:
    # The weights do not depend on the input size, so the grid can have more than one place.
    for name in ("encoder.json", "encoder.weights.h5"):
        (tmp_path / name).write_bytes((tiny_encoder / name).read_bytes())
    values = json.loads((tmp_path / "encoder.json").read_text())
    write_json(tmp_path / "encoder.json", values | {"input_size": 64})
    pooled, grid = load_encoder(tmp_path), load_encoder(tmp_path, "grid")
    photos = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    places = np.asarray(grid.predict_on_batch(photos))
    assert places.shape == (2, 4, 1024)
    assert places.std(axis=1).max() > 0.1
    assert np.allclose(places.mean(axis=1), pooled.predict_on_batch(photos), atol=1e-5, rtol=1e-5)


def test_places_stand_in_reading_order() -> None:
    network = build_encoder("MobileNet", 64, "grid")
    mapped = keras.Model(network.input, network.layers[-2].output)
    photos = np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32)
    places, map_ = network.predict_on_batch(photos), mapped.predict_on_batch(photos)
    assert np.array_equal(places[0], map_[0].reshape(4, 1024))
    assert np.array_equal(places[0, 1], map_[0, 0, 1])
    assert not np.array_equal(places[0, 1], places[0, 2])


ENCODING = Encoding(
    encoder="MobileNet",
    input_size=32,
    weights_sha256="a" * 64,
    preprocessing="keras.applications.mobilenet.preprocess_input",
    preprocessing_sha256="b" * 64,
    decoding=DECODING,
    pooling="average",
    dtype="float16",
)


@pytest.mark.parametrize("field", asdict(ENCODING))
def test_the_fingerprint_changes_with_each_field(field: str) -> None:
    value = asdict(ENCODING)[field]
    other: Any = value + 1 if isinstance(value, int) else value + "x"
    assert replace(ENCODING, **{field: other}).fingerprint != ENCODING.fingerprint
    assert replace(ENCODING, **{field: value}).fingerprint == ENCODING.fingerprint


def test_a_description_comes_back_and_becomes_an_encoding(tmp_path: Path) -> None:
    description = describe_encoder("MobileNet", 32, "random", "a" * 64)
    write_json(tmp_path / "encoder.json", asdict(description))
    assert read_encoder(tmp_path / "encoder.json") == description
    encoding = description.encoding("average", "float16")
    digest = preprocessing_sha256("MobileNet")
    assert encoding == replace(ENCODING, preprocessing_sha256=digest)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format_version": 2}, "is of format version 2"),
        ({"more": 1}, "is of another format version"),
        ({"preprocessing_sha256": "0" * 64}, "of the installed Keras scales pixels differently"),
    ],
)
def test_a_description_of_something_else_is_refused(
    tmp_path: Path, change: dict[str, object], words: str
) -> None:
    path = tmp_path / "encoder.json"
    values = asdict(describe_encoder("MobileNet", 32, "random", "a" * 64))
    write_json(path, values | change)
    with pytest.raises(InputError, match=rf"{re.escape(str(path))}.*{words}.*dvc repro encoder"):
        read_encoder(path)


def test_an_absent_short_or_unreadable_description_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "encoder.json"
    with pytest.raises(InputError, match=r"is not there: run `dvc repro encoder`"):
        read_encoder(path)
    write_json(path, {"encoder": "MobileNet"})
    with pytest.raises(InputError, match="another format version: run `dvc repro encoder`"):
        read_encoder(path)
    path.write_text("{")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        read_encoder(path)


@pytest.mark.parametrize(
    "change",
    [{"encoder": ["MobileNet"]}, {"encoder": 3}, {"input_size": "32"}, {"input_size": 32.5}],
)
def test_a_description_with_other_kinds_of_value_is_refused(
    tmp_path: Path, change: dict[str, object]
) -> None:
    path = tmp_path / "encoder.json"
    values = asdict(describe_encoder("MobileNet", 32, "random", "a" * 64))
    write_json(path, values | change)
    with pytest.raises(InputError, match="another format version: run `dvc repro encoder`"):
        read_encoder(path)
