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

SIZE = 5  # no multiple of OpenVINOEngine's part of a batch
KINDS = ["keras_engine", "openvino_engine"]


def photos(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network(tiny_encoder: Path) -> Any:
    return load_encoder(tiny_encoder)


@pytest.fixture(scope="module")
def of_pixels(network: Any) -> Any:
    return with_preprocessing(network, "MobileNet")


@pytest.fixture(scope="module")
def graph(of_pixels: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    file = GraphFile(tmp_path_factory.mktemp("graphs"), "encoder", "key")
    file.write(of_pixels)
    return file.path


@pytest.fixture(scope="module")
def keras_engine(of_pixels: Any) -> Engine:
    return KerasEngine(of_pixels, SIZE)


@pytest.fixture(scope="module")
def openvino_engine(graph: Path) -> Engine:
    return OpenVINOEngine(graph, SIZE)


@pytest.fixture(params=KINDS)
def engine(request: pytest.FixtureRequest) -> Engine:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


def test_a_short_batch_has_the_vectors_of_a_full_one(engine: Engine) -> None:
    full = engine.encode(photos(SIZE))
    assert full.shape == (SIZE, 1024)
    assert full.dtype == np.float32
    assert np.isfinite(full).all()
    assert full.std(axis=0).max() > 0.1  # other photos, other vectors
    for count in range(1, SIZE):
        assert np.array_equal(engine.encode(photos(SIZE)[:count]), full[:count])


def test_photos_of_a_batch_do_not_touch_each_other(engine: Engine) -> None:
    other = photos(SIZE, seed=1)
    other[1] = photos(SIZE)[1]
    assert np.array_equal(engine.encode(other)[1], engine.encode(photos(SIZE))[1])


def test_vectors_are_the_caller_s_to_keep(engine: Engine) -> None:
    first = engine.start(photos(SIZE))
    second = engine.start(photos(SIZE, seed=1))
    kept = first.result()
    before = kept.copy()
    assert not np.array_equal(second.result(), before)
    engine.encode(photos(SIZE, seed=2))
    assert np.array_equal(kept, before)
    assert np.array_equal(engine.encode(photos(SIZE)), before)


def test_what_an_engine_says_of_itself(engine: Engine) -> None:
    assert (engine.batch_size, engine.shape) == (SIZE, (1024,))
    beside = isinstance(engine, KerasEngine) and engines._has_accelerator()
    assert engine.accelerated is beside


def test_photos_are_left_as_they_were(engine: Engine) -> None:
    given = photos(SIZE)
    engine.encode(given)
    assert np.array_equal(given, photos(SIZE))


def test_more_photos_than_a_batch_are_refused(engine: Engine) -> None:
    before = engine.passes
    with pytest.raises(ValueError, match="6 images in a batch of 5"):
        engine.encode(photos(SIZE + 1))
    assert engine.passes == before


def test_the_engine_does_what_the_network_does_to_prepared_pixels(
    engine: Engine, network: Any
) -> None:
    prepared = keras.applications.mobilenet.preprocess_input(photos(SIZE).astype(np.float32))
    wanted = network.predict_on_batch(prepared)
    assert np.allclose(engine.encode(photos(SIZE)), wanted, atol=1e-5, rtol=1e-5)


def test_keras_and_openvino_agree(keras_engine: Engine, openvino_engine: Engine) -> None:
    vectors, same = keras_engine.encode(photos(SIZE)), openvino_engine.encode(photos(SIZE))
    assert vectors.std() > 0.1
    assert np.allclose(vectors, same, atol=1e-5, rtol=1e-5)


def test_one_photo_alone_has_the_vectors_of_many(graph: Path, openvino_engine: Engine) -> None:
    alone = OpenVINOEngine(graph, 1)
    found = [alone.encode(photos(SIZE)[place : place + 1])[0] for place in range(SIZE)]
    assert np.allclose(found, openvino_engine.encode(photos(SIZE)), atol=1e-5, rtol=1e-5)


def test_the_number_of_cores_changes_nothing(graph: Path, openvino_engine: Engine) -> None:
    alone = OpenVINOEngine(graph, SIZE, cores=1)
    assert alone._compiled.get_property("INFERENCE_NUM_THREADS") == 1
    found, others = alone.encode(photos(SIZE)), openvino_engine.encode(photos(SIZE))
    assert np.allclose(found, others, atol=1e-5, rtol=1e-5)


def test_a_grid_keeps_its_places(tiny_encoder: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    grid = with_preprocessing(load_encoder(tiny_encoder, "grid"), "MobileNet")
    file = GraphFile(tmp_path, "encoder", "key")
    file.write(grid)
    converted, plain = OpenVINOEngine(file.path, SIZE), KerasEngine(grid, SIZE)
    assert converted.shape == plain.shape == (1, 1024)
    vectors = converted.encode(photos(SIZE))
    assert vectors.shape == (SIZE, 1, 1024)
    assert np.allclose(vectors, plain.encode(photos(SIZE)), atol=1e-5, rtol=1e-5)


@pytest.fixture
def artifacts(tiny_encoder: Path, tmp_path: Path) -> Path:
    for name in ("encoder.json", "encoder.weights.h5"):
        (tmp_path / name).write_bytes((tiny_encoder / name).read_bytes())
    return tmp_path


def encoding_of(artifacts: Path, pooling: str = "average") -> FeatureSpec:
    return read_encoder_config(artifacts / "encoder.json").encoding("whole", pooling, 1, "float16")


def with_driver(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *, driver: bool, devices: list[str]
) -> None:
    """Have a machine with or without an accelerator's driver, and with Keras' devices."""
    (folder / "driver").touch()
    paths = (str(folder / "none"), str(folder / ("driver" if driver else "none as well")))
    monkeypatch.setattr(engines, "_DRIVERS", paths)
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: devices)


@pytest.mark.parametrize(
    ("driver", "devices", "accelerated"),
    [
        (True, ["cpu:0", "gpu:0"], True),
        (True, ["tpu:0"], True),
        (True, ["cpu:0"], False),  # for which Keras' backend is not made
        (False, ["cpu:0"], False),
    ],
)
def test_an_accelerator_is_one_that_keras_finds(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    of_pixels: Any,
    driver: bool,
    devices: list[str],
    accelerated: bool,
) -> None:
    with_driver(monkeypatch, tmp_path, driver=driver, devices=devices)
    assert KerasEngine(of_pixels, SIZE).accelerated is accelerated


def test_without_a_driver_keras_is_not_asked(
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
        ("auto", False, True, KerasEngine),
        ("keras", True, False, KerasEngine),
        ("openvino", True, True, OpenVINOEngine),
    ],
)
def test_the_engine_fits_the_machine(
    monkeypatch: pytest.MonkeyPatch,
    artifacts: Path,
    kind: str,
    installed: bool,
    gpu: bool,
    expected: type[Engine],
) -> None:
    if expected is OpenVINOEngine:
        pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    monkeypatch.setattr(openvino_graphs, "installed", lambda: installed)
    with_driver(monkeypatch, artifacts, driver=gpu, devices=["gpu:0"])
    engine = load_engine(kind, artifacts, encoding_of(artifacts), SIZE)
    assert type(engine) is expected
    assert (artifacts / openvino_graphs.FOLDER).exists() == (expected is OpenVINOEngine)
    assert engine.encode(photos(2)).shape == (2, 1024)


def test_an_engine_that_is_not_installed_is_told(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        InputError, match=r"runtime\.engine is openvino.*pip install -e '\.\[openvino"
    ):
        load_engine("openvino", artifacts, encoding_of(artifacts), SIZE)


def test_on_another_backend_keras_is_the_engine(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    monkeypatch.setattr(openvino_graphs, "installed", lambda: True)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert type(load_engine("auto", artifacts, encoding_of(artifacts), SIZE)) is KerasEngine
    with pytest.raises(InputError, match=r"runtime\.engine is openvino.*unset KERAS_BACKEND"):
        load_engine("openvino", artifacts, encoding_of(artifacts), SIZE)


def test_a_graph_is_converted_once_and_again_for_another_encoding(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path
) -> None:
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    built: list[FeatureSpec] = []
    build = engines._pixels_to_vectors

    def count(folder: Path, encoding: FeatureSpec) -> Any:
        built.append(encoding)
        return build(folder, encoding)

    monkeypatch.setattr(engines, "_pixels_to_vectors", count)
    average, grid = encoding_of(artifacts), encoding_of(artifacts, "grid")
    shapes = [
        load_engine("openvino", artifacts, encoding, SIZE).shape
        for encoding in (average, average, grid, grid)
    ]
    assert shapes == [(1024,), (1024,), (1, 1024), (1, 1024)]
    assert built == [average, grid]
    (artifacts / openvino_graphs.FOLDER / "encoder.bin").write_bytes(b"damaged")
    assert load_engine("openvino", artifacts, grid, SIZE).encode(photos(1)).shape == (1, 1, 1024)
    assert built == [average, grid, grid]


@pytest.mark.parametrize(
    ("agrees", "dtype", "mixed"),
    [(0.05, "float16", True), (0.0, "float16", False), (0.05, "float32", False)],
)
def test_an_accelerator_computes_in_float16_where_that_is_stored_and_agrees(
    monkeypatch: pytest.MonkeyPatch,
    artifacts: Path,
    capsys: pytest.CaptureFixture[str],
    agrees: float,
    dtype: str,
    mixed: bool,
) -> None:
    encoding = replace(encoding_of(artifacts), dtype=dtype)
    exact = load_engine("keras", artifacts, encoding, SIZE).encode(photos(2))
    with_driver(monkeypatch, artifacts, driver=True, devices=["gpu:0"])
    monkeypatch.setattr(engines, "_AGREES", agrees)
    engine = load_engine("auto", artifacts, encoding, SIZE)
    vectors = engine.encode(photos(2))
    assert vectors.dtype == np.float32
    assert np.abs(vectors - exact).max() < 0.05 * np.abs(exact).max()
    assert np.array_equal(vectors, exact) is not mixed
    assert ("mixed precision used" in capsys.readouterr().out) is mixed
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.parametrize("kind", ["keras", "openvino"])
def test_damaged_artefacts_are_told_before_anything_is_converted(
    artifacts: Path, kind: str
) -> None:
    if kind == "openvino":
        pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    encoding = encoding_of(artifacts)
    (artifacts / "encoder.weights.h5").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"encoder\.weights\.h5 is no readable HDF5 file"):
        load_engine(kind, artifacts, encoding, SIZE)
    assert not (artifacts / openvino_graphs.FOLDER).exists()


def test_openvino_takes_no_more_than_its_cores(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    opset = openvino.opset13
    pixels = opset.parameter([-1, 32, 32, 3], np.uint8)
    mean = opset.reduce_mean(opset.convert(pixels, "f32"), np.array([1, 2]))
    openvino.save_model(openvino.Model([mean], [pixels]), tmp_path / "colours.xml")
    engine = OpenVINOEngine(tmp_path / "colours.xml", 3, cores=1)
    assert engine._compiled.get_property("INFERENCE_NUM_THREADS") == 1
    photos = np.full((3, 32, 32, 3), 7, np.uint8)
    assert np.array_equal(engine.encode(photos), np.full((3, 3), 7.0))
