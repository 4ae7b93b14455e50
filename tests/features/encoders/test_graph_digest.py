import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.backend import keras
from pipeline.errors import InputError
from pipeline.features.encoders import networks, pooling
from pipeline.features.encoders.graph_digest import graph_sha256
from pipeline.features.encoders.networks import build_network, graph_digests
from pipeline.features.encoders.pretrained import load_encoder
from tests.support.project import ROOT


def small(units: int = 3, *, names: str = "a", scale: float = 1.0, **options: Any) -> Any:
    """Build a network with a nested one; each argument but the names changes its output."""
    inputs = keras.Input((4,), name=f"{names}_in")
    inner = keras.Sequential([keras.layers.Dense(units, name=f"{names}_d", **options)])
    return keras.Model(inputs, inner(inputs) * scale, name=names)


def test_names_weights_and_training_do_not_count() -> None:
    digest = graph_sha256(small())
    assert graph_sha256(small(names="b")) == digest
    assert graph_sha256(small(kernel_initializer="zeros", kernel_regularizer="l2")) == digest
    frozen = small()
    frozen.trainable = False
    frozen.set_weights([weight + 1 for weight in frozen.get_weights()])
    assert graph_sha256(frozen) == digest


def test_layers_options_constants_and_connections_count() -> None:
    inputs = keras.Input((4,))
    dense, other = keras.layers.Dense(4), keras.layers.Dense(4)
    models = [
        small(),
        small(4),
        small(scale=2.0),
        small(activation="relu"),
        small(use_bias=False),
        keras.Model(inputs, dense(inputs) - other(inputs)),
        keras.Model(inputs, other(dense(inputs)) - inputs),
        keras.Model(inputs, [dense(inputs), other(inputs)]),
        keras.Model(inputs, [dense(inputs), dense(inputs)]),
    ]
    assert len({graph_sha256(model) for model in models}) == len(models)


@keras.saving.register_keras_serializable()
class Doubled(keras.layers.Layer):  # type: ignore[misc]
    """A layer that is not Keras' own."""

    def call(self, inputs: Any) -> Any:
        return inputs * 2


def test_the_code_of_a_layer_that_is_not_keras_own_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Doubled()(inputs))
    digest = graph_sha256(model)
    source = "class Doubled:\n    def call(self, inputs): return inputs * {factor}  # {factor}"
    monkeypatch.setattr("inspect.getsource", lambda _: source.format(factor=2))
    doubled = graph_sha256(model)
    monkeypatch.setattr("inspect.getsource", lambda _: source.format(factor=3))
    assert len({digest, doubled, graph_sha256(model)}) == 3


def test_a_network_built_in_another_process_has_the_same_digests() -> None:
    code = (
        "from pipeline.features.encoders.networks import build_network, graph_digests\n"
        "build_network('MobileNet', 64)\n"  # other numbers in the names of layers
        "print(graph_digests('MobileNet', build_network('MobileNet', 32)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == str(mobilenet_digests())


def mobilenet_digests() -> dict[str, list[str]]:
    return graph_digests("MobileNet", build_network("MobileNet", 32))


def test_each_pooling_and_number_of_scales_has_its_own_digest() -> None:
    digests = mobilenet_digests()
    assert {name: len(values) for name, values in digests.items()} == {
        "average": 5,
        "quarters": 5,
        "grid": 5,
    }
    assert len({digest for values in digests.values() for digest in values}) == 15


def max_pooling(maps: Any, name: str = "pooled") -> Any:
    means = [keras.layers.GlobalMaxPooling2D(name=f"{name}_{i}")(m) for i, m in enumerate(maps)]
    return pooling._concatenate(means, name)


scale_maps = pooling.scale_maps


def earlier_maps(network: Any) -> list[Any]:
    first, second, *others = scale_maps(network)
    return [first, second * 1.5, *others]


CHANGES: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], set[str]]] = {
    "maximum instead of average": (
        lambda m: m.setitem(networks._POOLINGS, "average", max_pooling),
        {"average"},
    ),
    "quarters twice as large": (
        lambda m: m.setitem(
            networks._POOLINGS, "quarters", lambda maps: pooling.quarters(maps) * 2
        ),
        {"quarters"},
    ),
    "other maps": (
        lambda m: m.setattr(pooling, "scale_maps", earlier_maps),
        {"average", "quarters", "grid"},
    ),
    "other preprocessing": (
        lambda m: m.setattr(
            keras.applications.mobilenet, "preprocess_input", lambda pixels: pixels / 128 - 1
        ),
        {"average", "quarters", "grid"},
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_in_the_code_changes_the_digests_and_the_old_features_are_not_valid(
    tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    before = mobilenet_digests()
    apply, changed = CHANGES[change]
    apply(monkeypatch)
    after = mobilenet_digests()
    assert {name for name in before if before[name] != after[name]} == changed
    if change != "other preprocessing":  # its own digest is compared before
        with pytest.raises(InputError, match=r"encoder\.json: this code, with Keras .* run `dvc r"):
            load_encoder(tiny_encoder, min(changed), 2)
