import errno
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.backend import keras
from pipeline.errors import InputError
from pipeline.features.encoders import engines
from pipeline.features.encoders.engines import (
    Engine,
    KerasEngine,
    OpenVINOEngine,
    load_engine,
)
from pipeline.features.encoders.networks import with_preprocessing
from pipeline.features.encoders.pretrained import load_encoder
from pipeline.features.feature_spec import FeatureSpec, read_encoder_config
from pipeline.storage import openvino_graphs
from pipeline.storage.openvino_graphs import GraphFile

SIZE = 5  # not a multiple of OpenVINOEngine's chunk size
KINDS = ["keras_engine", "openvino_engine"]


def photos(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network(tiny_encoder: Path) -> Any:
    return load_encoder(tiny_encoder)


@pytest.fixture(scope="module")
def pixel_network(network: Any) -> Any:
    return with_preprocessing(network, "MobileNet")


@pytest.fixture(scope="module")
def graph(pixel_network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    file = GraphFile(tmp_path_factory.mktemp("graphs"), "encoder", "key")
    file.write(pixel_network)
    return file.path


@pytest.fixture(scope="module")
def keras_engine(pixel_network: Any) -> Engine:
    return KerasEngine(pixel_network, SIZE)


@pytest.fixture(scope="module")
def openvino_engine(graph: Path) -> Engine:
    return OpenVINOEngine(graph, SIZE)


@pytest.fixture(params=KINDS)
def engine(request: pytest.FixtureRequest) -> Engine:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


def test_a_short_batch_gives_the_same_vectors_as_a_full_one(engine: Engine) -> None:
    full = engine.encode(photos(SIZE))
    assert full.shape == (SIZE, 1024)
    assert full.dtype == np.float32
    assert np.isfinite(full).all()
    assert full.std(axis=0).max() > 0.1  # the photos have different vectors
    for count in range(1, SIZE):
        assert np.array_equal(engine.encode(photos(SIZE)[:count]), full[:count])


def test_the_photos_of_a_batch_do_not_affect_each_other(engine: Engine) -> None:
    other = photos(SIZE, seed=1)
    other[1] = photos(SIZE)[1]
    assert np.array_equal(engine.encode(other)[1], engine.encode(photos(SIZE))[1])


def test_later_batches_do_not_overwrite_returned_vectors(engine: Engine) -> None:
    first = engine.start(photos(SIZE))
    second = engine.start(photos(SIZE, seed=1))
    vectors = first.result()
    original = vectors.copy()
    assert not np.array_equal(second.result(), original)
    engine.encode(photos(SIZE, seed=2))
    assert np.array_equal(vectors, original)
    assert np.array_equal(engine.encode(photos(SIZE)), original)


def test_the_attributes_of_an_engine(engine: Engine) -> None:
    assert (engine.batch_size, engine.shape) == (SIZE, (1024,))
    accelerated = isinstance(engine, KerasEngine) and engines._has_accelerator()
    assert engine.accelerated is accelerated


def test_encoding_does_not_change_the_images(engine: Engine) -> None:
    images = photos(SIZE)
    engine.encode(images)
    assert np.array_equal(images, photos(SIZE))


def test_more_photos_than_a_batch_are_refused(engine: Engine) -> None:
    passes = engine.passes
    with pytest.raises(ValueError, match="6 images in a batch of 5"):
        engine.encode(photos(SIZE + 1))
    assert engine.passes == passes


def test_an_engine_gives_the_network_output_for_preprocessed_pixels(
    engine: Engine, network: Any
) -> None:
    preprocessed = keras.applications.mobilenet.preprocess_input(photos(SIZE).astype(np.float32))
    expected = network.predict_on_batch(preprocessed)
    assert np.allclose(engine.encode(photos(SIZE)), expected, atol=1e-5, rtol=1e-5)


def test_keras_and_openvino_agree(keras_engine: Engine, openvino_engine: Engine) -> None:
    with_keras = keras_engine.encode(photos(SIZE))
    with_openvino = openvino_engine.encode(photos(SIZE))
    assert with_keras.std() > 0.1
    assert np.allclose(with_keras, with_openvino, atol=1e-5, rtol=1e-5)


def test_a_batch_size_of_one_gives_the_same_vectors(graph: Path, openvino_engine: Engine) -> None:
    single = OpenVINOEngine(graph, 1)
    vectors = [single.encode(photos(SIZE)[row : row + 1])[0] for row in range(SIZE)]
    assert np.allclose(vectors, openvino_engine.encode(photos(SIZE)), atol=1e-5, rtol=1e-5)


def test_the_number_of_cores_does_not_change_the_vectors(
    graph: Path, openvino_engine: Engine
) -> None:
    on_one_core = OpenVINOEngine(graph, SIZE, cores=1)
    assert on_one_core._compiled.get_property("INFERENCE_NUM_THREADS") == 1
    vectors, expected = on_one_core.encode(photos(SIZE)), openvino_engine.encode(photos(SIZE))
    assert np.allclose(vectors, expected, atol=1e-5, rtol=1e-5)


def test_both_engines_give_the_same_grid(tiny_encoder: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    grid = with_preprocessing(load_encoder(tiny_encoder, "grid"), "MobileNet")
    file = GraphFile(tmp_path, "encoder", "key")
    file.write(grid)
    with_openvino, with_keras = OpenVINOEngine(file.path, SIZE), KerasEngine(grid, SIZE)
    assert with_openvino.shape == with_keras.shape == (1, 1024)
    vectors = with_openvino.encode(photos(SIZE))
    assert vectors.shape == (SIZE, 1, 1024)
    assert np.allclose(vectors, with_keras.encode(photos(SIZE)), atol=1e-5, rtol=1e-5)


@pytest.fixture
def artifacts(tiny_encoder: Path, tmp_path: Path) -> Path:
    for name in ("encoder.json", "encoder.weights.h5"):
        (tmp_path / name).write_bytes((tiny_encoder / name).read_bytes())
    return tmp_path


def feature_spec_of(artifacts: Path, pooling: str = "average") -> FeatureSpec:
    return read_encoder_config(artifacts / "encoder.json").feature_spec(
        "whole", pooling, 1, "float16"
    )


def with_driver(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *, driver: bool, devices: list[str]
) -> None:
    """Simulate a machine with or without an accelerator's driver, and the devices of Keras."""
    (folder / "driver").touch()
    paths = (str(folder / "none"), str(folder / ("driver" if driver else "none as well")))
    monkeypatch.setattr(engines, "_DRIVERS", paths)
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: devices)


@pytest.mark.parametrize(
    ("driver", "devices", "accelerated"),
    [
        (True, ["cpu:0", "gpu:0"], True),
        (True, ["tpu:0"], True),
        (True, ["cpu:0"], False),  # which Keras' backend does not support
        (False, ["cpu:0"], False),
    ],
)
def test_a_driver_counts_only_if_keras_finds_the_accelerator(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    pixel_network: Any,
    driver: bool,
    devices: list[str],
    accelerated: bool,
) -> None:
    with_driver(monkeypatch, tmp_path, driver=driver, devices=devices)
    assert KerasEngine(pixel_network, SIZE).accelerated is accelerated


def test_without_a_driver_keras_is_not_queried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_driver(monkeypatch, tmp_path, driver=False, devices=["gpu:0"])
    assert not engines._has_accelerator()


@pytest.mark.parametrize(
    ("kind", "installed", "gpu", "expected"),
    [
        ("auto", True, False, OpenVINOEngine),
        ("auto", False, False, KerasEngine),
        ("auto", True, True, KerasEngine),
        pytest.param("auto", False, True, KerasEngine, marks=pytest.mark.soak),
        ("keras", True, False, KerasEngine),
        pytest.param("openvino", True, True, OpenVINOEngine, marks=pytest.mark.soak),
    ],
)
def test_the_engine_is_chosen_for_the_machine(
    monkeypatch: pytest.MonkeyPatch,
    artifacts: Path,
    kind: str,
    installed: bool,
    gpu: bool,
    expected: type[Engine],
) -> None:
    if expected is OpenVINOEngine:
        pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    monkeypatch.setattr(openvino_graphs, "is_installed", lambda: installed)
    with_driver(monkeypatch, artifacts, driver=gpu, devices=["gpu:0"])
    engine = load_engine(kind, artifacts, feature_spec_of(artifacts), SIZE)
    assert type(engine) is expected
    assert (artifacts / openvino_graphs.FOLDER).exists() == (expected is OpenVINOEngine)
    assert engine.encode(photos(2)).shape == (2, 1024)


def test_an_engine_that_is_not_installed_is_an_error(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        InputError, match=r"runtime\.engine is openvino.*pip install -e '\.\[openvino"
    ):
        load_engine("openvino", artifacts, feature_spec_of(artifacts), SIZE)


def test_on_another_backend_keras_is_the_engine(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    monkeypatch.setattr(openvino_graphs, "is_installed", lambda: True)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert type(load_engine("auto", artifacts, feature_spec_of(artifacts), SIZE)) is KerasEngine
    with pytest.raises(InputError, match=r"runtime\.engine is openvino.*unset KERAS_BACKEND"):
        load_engine("openvino", artifacts, feature_spec_of(artifacts), SIZE)


def test_a_graph_is_converted_once_per_feature_spec(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    built: list[FeatureSpec] = []
    build = engines._build_network

    def record_and_build(folder: Path, feature_spec: FeatureSpec) -> Any:
        built.append(feature_spec)
        return build(folder, feature_spec)

    monkeypatch.setattr(engines, "_build_network", record_and_build)
    average, grid = feature_spec_of(artifacts), feature_spec_of(artifacts, "grid")
    shapes = [
        load_engine("openvino", artifacts, feature_spec, SIZE).shape
        for feature_spec in (average, average, grid, grid)
    ]
    assert shapes == [(1024,), (1024,), (1, 1024), (1, 1024)]
    assert built == [average, grid]
    (artifacts / openvino_graphs.FOLDER / "encoder.bin").write_bytes(b"damaged")
    assert load_engine("openvino", artifacts, grid, SIZE).encode(photos(1)).shape == (1, 1, 1024)
    assert built == [average, grid, grid]


def test_where_no_graph_can_be_written_the_encoder_runs_on_keras(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(openvino_graphs, "check_disk_space", refuse)
    engine = load_engine("auto", artifacts, feature_spec_of(artifacts), SIZE)
    assert type(engine) is KerasEngine
    assert "cannot hold encoder.bin (No space left on device)" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["code", "weights", "no weights"])
def test_a_graph_of_other_code_or_weights_is_not_used(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path, change: str
) -> None:
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    feature_spec = feature_spec_of(artifacts)
    load_engine("openvino", artifacts, feature_spec, SIZE)
    weights = artifacts / "encoder.weights.h5"
    if change == "code":
        monkeypatch.setattr(openvino_graphs, "code_sha256", lambda *_: "other code")
        monkeypatch.setattr(engines, "_build_network", lambda *_: built.append(1))
    elif change == "weights":
        weights.write_bytes(b"junk")
    else:
        weights.unlink()
    built: list[int] = []
    messages = {"weights": r"not a readable HDF5 file", "no weights": "is not there"}
    with pytest.raises((InputError, AttributeError), match=messages.get(change, "NoneType")):
        load_engine("openvino", artifacts, feature_spec, SIZE)
    assert bool(built) is (change == "code")


@pytest.mark.parametrize(
    ("tolerance", "dtype", "mixed"),
    [
        (0.05, "float16", True),
        (0.0, "float16", False),
        pytest.param(0.05, "float32", False, marks=pytest.mark.soak),
    ],
)
def test_an_accelerator_uses_mixed_precision_if_float16_is_stored_and_the_error_is_small(
    monkeypatch: pytest.MonkeyPatch,
    artifacts: Path,
    capsys: pytest.CaptureFixture[str],
    tolerance: float,
    dtype: str,
    mixed: bool,
) -> None:
    feature_spec = replace(feature_spec_of(artifacts), dtype=dtype)
    exact = load_engine("keras", artifacts, feature_spec, SIZE).encode(photos(2))
    with_driver(monkeypatch, artifacts, driver=True, devices=["gpu:0"])
    monkeypatch.setattr(engines, "_MIXED_PRECISION_TOLERANCE", tolerance)
    engine = load_engine("auto", artifacts, feature_spec, SIZE)
    vectors = engine.encode(photos(2))
    assert vectors.dtype == np.float32
    assert np.abs(vectors - exact).max() < 0.05 * np.abs(exact).max()
    assert np.array_equal(vectors, exact) is not mixed
    assert ("mixed precision used" in capsys.readouterr().out) is mixed
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize("kind", ["keras", "openvino"])
def test_damaged_artifacts_are_an_error_before_anything_is_converted(
    artifacts: Path, kind: str
) -> None:
    if kind == "openvino":
        pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    feature_spec = feature_spec_of(artifacts)
    (artifacts / "encoder.weights.h5").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"encoder\.weights\.h5 is not a readable HDF5 file"):
        load_engine(kind, artifacts, feature_spec, SIZE)
    assert not (artifacts / openvino_graphs.FOLDER).exists()


def test_openvino_uses_only_the_given_cores(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    opset = openvino.opset13
    pixels = opset.parameter([-1, 32, 32, 3], np.uint8)
    mean = opset.reduce_mean(opset.convert(pixels, "f32"), np.array([1, 2]))
    openvino.save_model(openvino.Model([mean], [pixels]), tmp_path / "colours.xml")
    engine = OpenVINOEngine(tmp_path / "colours.xml", 3, cores=1)
    assert engine._compiled.get_property("INFERENCE_NUM_THREADS") == 1
    photos = np.full((3, 32, 32, 3), 7, np.uint8)
    assert np.array_equal(engine.encode(photos), np.full((3, 3), 7.0))
