import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.backend import keras
from pipeline.errors import InputError
from pipeline.features import engines
from pipeline.features.encoders import preprocessing
from pipeline.features.engines import Engine, KerasEngine, OpenVINOEngine, make_engine
from pipeline.features.weights import load_encoder

SIZE = 5  # no multiple of OpenVINOEngine's part of a batch


def photos(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network(tiny_encoder: Path) -> Any:
    return load_encoder(tiny_encoder)


@pytest.fixture(scope="module")
def keras_engine(network: Any) -> Engine:
    return KerasEngine(network, "MobileNet", SIZE)


@pytest.fixture(scope="module")
def openvino_engine(network: Any) -> Engine:
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    return OpenVINOEngine(network, "MobileNet", SIZE)


@pytest.fixture(params=["keras_engine", "openvino_engine"])
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


def test_passes_are_counted(engine: Engine) -> None:
    before = engine.passes
    engine.encode(photos(1))
    engine.encode(photos(SIZE))
    assert engine.passes == before + 2


def test_photos_are_left_as_they_were(engine: Engine) -> None:
    given = photos(SIZE)
    engine.encode(given)
    assert np.array_equal(given, photos(SIZE))


def test_more_photos_than_a_batch_are_refused(engine: Engine) -> None:
    with pytest.raises(ValueError, match="broadcast"):
        engine.encode(photos(SIZE + 1))


def test_the_engine_does_what_the_network_does_to_prepared_pixels(
    engine: Engine, network: Any
) -> None:
    prepared = preprocessing("MobileNet")(photos(SIZE).astype(np.float32))
    wanted = network.predict_on_batch(prepared)
    assert np.allclose(engine.encode(photos(SIZE)), wanted, atol=1e-5, rtol=1e-5)


def test_keras_and_openvino_agree(keras_engine: Engine, openvino_engine: Engine) -> None:
    vectors, same = keras_engine.encode(photos(SIZE)), openvino_engine.encode(photos(SIZE))
    assert vectors.std() > 0.1
    assert np.allclose(vectors, same, atol=1e-5, rtol=1e-5)


class Chosen(Exception):  # noqa: N818  (no error)
    pass


def chosen(
    monkeypatch: pytest.MonkeyPatch, kind: str, *, installed: bool, devices: list[str]
) -> str:
    """Return the name of the class that `make_engine` chooses."""
    spec = importlib.util.find_spec("json") if installed else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: devices)

    def stand_in(name: str) -> Any:
        def construct(*_: Any) -> None:
            raise Chosen(name)

        return construct

    for name in ("KerasEngine", "OpenVINOEngine"):
        monkeypatch.setattr(engines, name, stand_in(name))
    with pytest.raises(Chosen) as caught:
        make_engine(kind, None, "MobileNet", SIZE)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "installed", "devices", "name"),
    [
        ("auto", True, ["cpu:0"], "OpenVINOEngine"),
        ("auto", False, ["cpu:0"], "KerasEngine"),
        ("auto", True, ["cpu:0", "gpu:0"], "KerasEngine"),
        ("auto", False, ["gpu:0"], "KerasEngine"),
        ("keras", True, ["cpu:0"], "KerasEngine"),
        ("openvino", True, ["gpu:0"], "OpenVINOEngine"),
    ],
)
def test_the_engine_fits_the_machine(
    monkeypatch: pytest.MonkeyPatch, kind: str, installed: bool, devices: list[str], name: str
) -> None:
    assert chosen(monkeypatch, kind, installed=installed, devices=devices) == name


def test_an_engine_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        InputError, match=r"runtime\.engine is openvino.*pip install -e '\.\[openvino"
    ):
        make_engine("openvino", None, "MobileNet", SIZE)


def test_a_made_engine_encodes(network: Any) -> None:
    made = make_engine("keras", network, "MobileNet", SIZE)
    assert isinstance(made, KerasEngine)
    assert made.encode(photos(2)).shape == (2, 1024)
