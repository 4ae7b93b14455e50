from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from pipeline.backend import keras
from pipeline.captioner.training.optimizer import OptimizerConfig


def follow(
    optimization: OptimizerConfig, weights: Sequence[float], gradients: Sequence[Sequence[float]]
) -> list[list[float]]:
    """Return what the weights, a variable each, are after each step."""
    variables = [keras.Variable([weight], dtype="float32") for weight in weights]
    optimizer = optimization.build(len(gradients))
    found = []
    for gradient in gradients:
        arrays: list[Any] = [keras.ops.convert_to_tensor([g], dtype="float32") for g in gradient]
        optimizer.apply(arrays, variables)
        found.append([float(variable[0]) for variable in variables])
    return found


def test_without_more_it_is_adam() -> None:
    # Of equal gradients each step of Adam is as long as the rate.
    found = follow(OptimizerConfig(0.01), [1.0, -2.0], [[5.0, -0.1]] * 3)
    expected = [[1 - 0.01 * step, -2 + 0.01 * step] for step in (1, 2, 3)]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_weight_decay_shrinks_weights_without_gradients() -> None:
    found = follow(OptimizerConfig(0.1, weight_decay=0.2), [1.0, -3.0], [[0.0, 0.0]] * 4)
    shares = [(1 - 0.1 * 0.2) ** step for step in (1, 2, 3, 4)]
    np.testing.assert_allclose(found, [[share, -3 * share] for share in shares], rtol=1e-5)
    still = follow(OptimizerConfig(0.1), [1.0, -3.0], [[0.0, 0.0]] * 4)
    np.testing.assert_array_equal(still, [[1.0, -3.0]] * 4)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_all_gradients_together_are_cut_to_one_length(weight_decay: float) -> None:
    wild = [[300.0, -400.0], [0.03, 0.04], [0.0, 5.0]]
    cut = [[0.6, -0.8], [0.03, 0.04], [0.0, 1.0]]
    plain = OptimizerConfig(0.1, weight_decay=weight_decay)
    clipped = OptimizerConfig(0.1, weight_decay=weight_decay, clip_norm=1.0)
    weights = [1.0, 2.0]
    found = follow(clipped, weights, wild)
    np.testing.assert_allclose(found, follow(plain, weights, cut), rtol=1e-5)
    assert not np.allclose(found, follow(plain, weights, wild), rtol=1e-2)


def rates(optimization: OptimizerConfig, steps: int) -> list[float]:
    """Return how far each step of equal gradients goes: as far as the rate."""
    found = np.array(follow(optimization, [0.0], [[1.0]] * steps)).ravel()
    return (-np.diff(found, prepend=0.0)).tolist()  # type: ignore[no-any-return]


def test_a_constant_rate_stays() -> None:
    np.testing.assert_allclose(rates(OptimizerConfig(0.5), 8), [0.5] * 8, rtol=1e-4)


@pytest.mark.parametrize("weight_decay", [0.0, 1e-9])
def test_a_cosine_falls_to_nothing(weight_decay: float) -> None:
    optimization = OptimizerConfig(0.5, schedule="cosine", weight_decay=weight_decay)
    found = rates(optimization, 8)
    expected = [0.5 * (1 + np.cos(np.pi * step / 8)) / 2 for step in range(8)]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    # After the last step nothing is left, and it stays so.
    optimizer = optimization.build(8)
    optimizer.iterations.assign(8)
    assert float(optimizer.learning_rate) == pytest.approx(0, abs=1e-7)
    optimizer.iterations.assign(20)
    assert float(optimizer.learning_rate) == pytest.approx(0, abs=1e-7)
