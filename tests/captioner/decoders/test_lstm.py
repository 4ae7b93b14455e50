"""Ours beside Keras' own: the same layer, found in another order."""

from typing import Any

import numpy as np
import pytest

from pipeline.backend import keras
from pipeline.captioner.decoders import lstm
from pipeline.captioner.decoders.lstm import LSTM

ops = keras.ops

BATCH, UNITS, SIZE = 3, 4, 5


def make_network(layer: Any, stateful: bool) -> Any:
    """Return a network of all that an LSTM tells, from words and, if asked, its first state."""
    words = keras.Input((None, SIZE))
    first = [keras.Input((UNITS,)) for _ in range(2)] if stateful else []
    told = layer(words, initial_state=first or None)
    return keras.Model([words, *first], told)


def given(words: int, stateful: bool) -> list[Any]:
    random = np.random.default_rng(words)
    shapes = [(BATCH, words, SIZE), *[(BATCH, UNITS)] * (2 * stateful)]
    return [random.normal(size=shape).astype(np.float32) for shape in shapes]


def gradients(network: Any, inputs: list[Any], weighing: list[Any]) -> list[Any]:
    """Return those of a weighted sum of all that is told, of inputs and weights."""

    def total(inputs: list[Any], weights: list[Any]) -> Any:
        told, _ = network.stateless_call(weights, fixed, inputs)
        return sum(ops.sum(part * by) for part, by in zip(told, weighing, strict=True))

    weights = [ops.copy(variable) for variable in network.trainable_variables]
    fixed = [ops.copy(variable) for variable in network.non_trainable_variables]  # of no use here
    inputs = [ops.convert_to_tensor(array) for array in inputs]
    if keras.config.backend() == "jax":
        import jax  # noqa: PLC0415

        of_inputs, of_weights = jax.jit(jax.grad(total, argnums=(0, 1)))(inputs, weights)
        return [np.asarray(array) for array in [*of_inputs, *of_weights]]
    if keras.config.backend() == "torch":
        pytest.skip("autograd of Keras on PyTorch is not what this project trains with")
    import tensorflow as tf  # noqa: PLC0415

    @tf.function(input_signature=[[tf.TensorSpec([None] * a.ndim, a.dtype) for a in inputs]])  # type: ignore[untyped-decorator]
    def graph(inputs: list[Any]) -> Any:  # of any number of words, as in training
        with tf.GradientTape() as tape:
            tape.watch([*inputs, *weights])
            found = total([ops.reshape(a, s) for a, s in zip(inputs, shapes, strict=True)], weights)
        return tape.gradient(found, [*inputs, *weights])

    shapes = [(-1, *a.shape[1:]) if a.ndim == 2 else (BATCH, -1, SIZE) for a in inputs]
    return [np.asarray(array) for array in graph(inputs)]


@pytest.mark.parametrize("words", [1, 2, 9])
@pytest.mark.parametrize("stateful", [False, True])
def test_it_tells_and_learns_what_keras_does(
    words: int, stateful: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran, follow = [], lstm._follow

    def counting(*given: Any) -> Any:
        ran.append(given)
        return follow(*given)

    monkeypatch.setattr(lstm, "_follow", counting)
    monkeypatch.setattr(lstm, "has_accelerator", lambda: False)
    ours = make_network(LSTM(UNITS, return_state=True, name="lstm"), stateful)
    plain = keras.layers.LSTM(UNITS, return_sequences=True, return_state=True)
    theirs = make_network(plain, stateful)
    random = np.random.default_rng(1)
    for here, there in zip(ours.trainable_variables, theirs.trainable_variables, strict=True):
        weights = random.normal(size=there.shape)
        here.assign(weights)
        there.assign(weights)
    inputs = given(words, stateful)
    told = [network.predict_on_batch(inputs) for network in (ours, theirs)]
    assert ran or keras.config.backend() == "torch"
    for here, there in zip(*told, strict=True):
        np.testing.assert_allclose(here, there, rtol=1e-5, atol=1e-6)
    weighing = [random.normal(size=part.shape).astype(np.float32) for part in told[0]]
    found = [gradients(network, inputs, weighing) for network in (ours, theirs)]
    assert len(found[0]) == len(inputs) + 3
    for here, there in zip(*found, strict=True):
        assert words == 1 or np.abs(there).max() > 0.01
        np.testing.assert_allclose(here, there, rtol=1e-4, atol=1e-5)


def test_an_accelerator_keeps_the_loop_of_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the loop for a processor ran")

    monkeypatch.setattr(lstm, "has_accelerator", lambda: True)
    monkeypatch.setattr(lstm, "_follow", refuse)
    told = make_network(LSTM(UNITS, return_state=True, name="lstm"), True).predict_on_batch(
        given(4, True)
    )
    assert told[0].shape == (BATCH, 4, UNITS)
