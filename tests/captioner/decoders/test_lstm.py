"""The project's LSTM against Keras' own: equal outputs and equal gradients."""

from typing import Any

import numpy as np
import pytest

from pipeline.backend import keras
from pipeline.captioner.decoders import lstm
from pipeline.captioner.decoders.lstm import LSTM

ops = keras.ops

BATCH, UNITS, SIZE = 3, 4, 5


def make_network(layer: Any, stateful: bool) -> Any:
    """Return a network of all outputs of an LSTM, from words and, if stateful, a first state."""
    words = keras.Input((None, SIZE))
    initial_state = [keras.Input((UNITS,)) for _ in range(2)] if stateful else []
    outputs = layer(words, initial_state=initial_state or None)
    return keras.Model([words, *initial_state], outputs)


def make_inputs(words: int, stateful: bool) -> list[Any]:
    rng = np.random.default_rng(words)
    shapes = [(BATCH, words, SIZE), *[(BATCH, UNITS)] * (2 * stateful)]
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def gradients(network: Any, inputs: list[Any], output_weights: list[Any]) -> list[Any]:
    """Return the gradients of a weighted sum of all outputs, for inputs and weights."""

    def loss(inputs: list[Any], weights: list[Any]) -> Any:
        outputs, _ = network.stateless_call(weights, constants, inputs)
        return sum(
            ops.sum(output * weight) for output, weight in zip(outputs, output_weights, strict=True)
        )

    weights = [ops.copy(variable) for variable in network.trainable_variables]
    constants = [ops.copy(variable) for variable in network.non_trainable_variables]
    inputs = [ops.convert_to_tensor(array) for array in inputs]
    if keras.config.backend() == "jax":
        import jax  # noqa: PLC0415  (the other backend)

        d_inputs, d_weights = jax.jit(jax.grad(loss, argnums=(0, 1)))(inputs, weights)
        return [np.asarray(array) for array in [*d_inputs, *d_weights]]
    if keras.config.backend() == "torch":
        pytest.skip("on PyTorch the project uses Keras' LSTM and its gradient")
    import tensorflow as tf  # noqa: PLC0415  (the other backend)

    @tf.function(input_signature=[[tf.TensorSpec([None] * a.ndim, a.dtype) for a in inputs]])  # type: ignore[untyped-decorator]
    def graph(inputs: list[Any]) -> Any:  # for any number of words, as in training
        with tf.GradientTape() as tape:
            tape.watch([*inputs, *weights])
            value = loss([ops.reshape(a, s) for a, s in zip(inputs, shapes, strict=True)], weights)
        return tape.gradient(value, [*inputs, *weights])

    shapes = [(-1, *a.shape[1:]) if a.ndim == 2 else (BATCH, -1, SIZE) for a in inputs]
    return [np.asarray(array) for array in graph(inputs)]


@pytest.mark.parametrize("words", [1, 2, 9])
@pytest.mark.parametrize("stateful", [False, True])
def test_outputs_and_gradients_equal_those_of_keras(
    words: int, stateful: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, run_lstm = [], lstm._run_lstm

    def recording(*args: Any) -> Any:
        calls.append(args)
        return run_lstm(*args)

    monkeypatch.setattr(lstm, "_run_lstm", recording)
    monkeypatch.setattr(lstm, "has_accelerator", lambda: False)
    network = make_network(LSTM(UNITS, return_state=True, name="lstm"), stateful)
    keras_lstm = keras.layers.LSTM(UNITS, return_sequences=True, return_state=True)
    keras_network = make_network(keras_lstm, stateful)
    rng = np.random.default_rng(1)
    for variable, keras_variable in zip(
        network.trainable_variables, keras_network.trainable_variables, strict=True
    ):
        weights = rng.normal(size=keras_variable.shape)
        variable.assign(weights)
        keras_variable.assign(weights)
    inputs = make_inputs(words, stateful)
    outputs, expected = (n.predict_on_batch(inputs) for n in (network, keras_network))
    assert calls or keras.config.backend() == "torch"
    for output, keras_output in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(output, keras_output, rtol=1e-5, atol=1e-6)
    output_weights = [rng.normal(size=output.shape).astype(np.float32) for output in outputs]
    results, expected = (gradients(n, inputs, output_weights) for n in (network, keras_network))
    assert len(results) == len(inputs) + 3
    for result, keras_gradient in zip(results, expected, strict=True):
        assert words == 1 or np.abs(keras_gradient).max() > 0.01
        np.testing.assert_allclose(result, keras_gradient, rtol=1e-4, atol=1e-5)


def test_an_accelerator_uses_the_lstm_of_keras(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the loop for a CPU ran")

    monkeypatch.setattr(lstm, "has_accelerator", lambda: True)
    monkeypatch.setattr(lstm, "_run_lstm", refuse)
    network = make_network(LSTM(UNITS, return_state=True, name="lstm"), True)
    outputs = network.predict_on_batch(make_inputs(4, True))
    assert outputs[0].shape == (BATCH, 4, UNITS)
