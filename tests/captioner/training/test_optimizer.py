from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from pipeline.backend import keras
from pipeline.captioner.training.optimizer import OptimizerConfig


def apply_gradients(
    config: OptimizerConfig, weights: Sequence[float], gradients: Sequence[Sequence[float]]
) -> list[list[float]]:
    """Return the weights, a variable each, after each step."""
    variables = [keras.Variable([weight], dtype="float32") for weight in weights]
    optimizer = config.build(len(gradients))
    steps = []
    for gradient in gradients:
        arrays: list[Any] = [keras.ops.convert_to_tensor([g], dtype="float32") for g in gradient]
        optimizer.apply(arrays, variables)
        steps.append([float(variable[0]) for variable in variables])
    return steps


def test_without_options_it_is_adam() -> None:
    # With constant gradients each step of Adam is as long as the learning rate.
    steps = apply_gradients(OptimizerConfig(0.01), [1.0, -2.0], [[5.0, -0.1]] * 3)
    expected = [[1 - 0.01 * step, -2 + 0.01 * step] for step in (1, 2, 3)]
    np.testing.assert_allclose(steps, expected, atol=1e-5)


def test_weight_decay_shrinks_weights_without_gradients() -> None:
    decayed = apply_gradients(OptimizerConfig(0.1, weight_decay=0.2), [1.0, -3.0], [[0.0, 0.0]] * 4)
    shares = [(1 - 0.1 * 0.2) ** step for step in (1, 2, 3, 4)]
    np.testing.assert_allclose(decayed, [[share, -3 * share] for share in shares], rtol=1e-5)
    unchanged = apply_gradients(OptimizerConfig(0.1), [1.0, -3.0], [[0.0, 0.0]] * 4)
    np.testing.assert_array_equal(unchanged, [[1.0, -3.0]] * 4)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_gradients_are_clipped_by_their_global_norm(weight_decay: float) -> None:
    gradients = [[300.0, -400.0], [0.03, 0.04], [0.0, 5.0]]
    clipped_gradients = [[0.6, -0.8], [0.03, 0.04], [0.0, 1.0]]
    without = OptimizerConfig(0.1, weight_decay=weight_decay)
    with_clipping = OptimizerConfig(0.1, weight_decay=weight_decay, clip_norm=1.0)
    weights = [1.0, 2.0]
    steps = apply_gradients(with_clipping, weights, gradients)
    expected = apply_gradients(without, weights, clipped_gradients)
    np.testing.assert_allclose(steps, expected, rtol=1e-5)
    assert not np.allclose(steps, apply_gradients(without, weights, gradients), rtol=1e-2)


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="TensorFlow's sparse gradients")
@pytest.mark.parametrize("weight_decay", [None, 0.1])
def test_a_step_is_that_of_keras_own_adam(weight_decay: float | None) -> None:
    random = np.random.default_rng(0)
    tf = pytest.importorskip("tensorflow")
    initial = random.normal(size=(5, 3)).astype(np.float32)
    weights = {}
    for own in (OptimizerConfig(0.1, weight_decay=weight_decay or 0.0).build(0), None):
        optimizer = own or keras.optimizers.Adam(0.1, weight_decay=weight_decay)
        variables = [keras.Variable(initial), keras.Variable(initial)]
        random = np.random.default_rng(1)
        for _ in range(4):
            dense, rows = random.normal(size=(2, 5, 3)).astype(np.float32)
            # Three words, one of them three times, and two others not at all.
            rows[2] = -rows[1]
            words = tf.constant([4, 0, 0, 2, 0])
            sparse = tf.IndexedSlices(tf.constant(rows), words, tf.constant([5, 3]))
            optimizer.apply([tf.constant(dense), sparse], variables)
        weights[own is None] = [np.array(v) for v in (*variables, *optimizer.variables)]
    for ours, theirs in zip(weights[False], weights[True], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def learning_rates(config: OptimizerConfig, steps: int) -> list[float]:
    """Return the length of each step with constant gradients, which is the learning rate."""
    weights = np.array(apply_gradients(config, [0.0], [[1.0]] * steps)).ravel()
    return (-np.diff(weights, prepend=0.0)).tolist()  # type: ignore[no-any-return]


def test_a_constant_learning_rate_stays() -> None:
    np.testing.assert_allclose(learning_rates(OptimizerConfig(0.5), 8), [0.5] * 8, rtol=1e-4)


@pytest.mark.parametrize("weight_decay", [0.0, 1e-9])
def test_a_cosine_schedule_falls_to_zero(weight_decay: float) -> None:
    config = OptimizerConfig(0.5, schedule="cosine", weight_decay=weight_decay)
    rates = learning_rates(config, 8)
    expected = [0.5 * (1 + np.cos(np.pi * step / 8)) / 2 for step in range(8)]
    np.testing.assert_allclose(rates, expected, atol=1e-4)
    # After the last step it is zero, and stays so.
    optimizer = config.build(8)
    optimizer.iterations.assign(8)
    assert float(optimizer.learning_rate) == pytest.approx(0, abs=1e-7)
    optimizer.iterations.assign(20)
    assert float(optimizer.learning_rate) == pytest.approx(0, abs=1e-7)
