"""Resampling: confidence intervals of scores, and whether two runs differ by more than chance."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.metrics.ngrams import Floats
from pipeline.metrics.scorer import METRICS, Scores

SAMPLES = 1000
_SEED = 0  # the same scores always get the same intervals
_CONFIDENCE = 95  # percent
# So many samples' weights are in memory at a time: a corpus may have tens of thousands of images.
_BATCH = 100

Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """The difference between two runs in one metric.

    Attributes:
        first: score of the first run, x100.
        second: score of the second run, x100.
        interval: 95 % confidence interval of second minus first, over resampled images.
        p_value: probability of a difference at least this large if the two runs' captions were
            exchanged at random.
    """

    first: float
    second: float
    interval: Interval
    p_value: float


def bootstrap_intervals(scores: Scores, samples: int = SAMPLES) -> dict[str, Interval]:
    """Return the 95 % confidence interval of each metric, over resampled images.

    The percentile bootstrap (Koehn 2004, "Statistical significance tests for machine
    translation evaluation"). It covers the choice of test images, not that of another training.
    """
    resampled = np.concatenate(
        [scores.resampled(weights) for weights in _bootstrap_weights(len(scores.rouge_l), samples)]
    )
    return dict(zip(METRICS, _percentile_intervals(resampled), strict=True))


def paired_differences(
    first: Scores, second: Scores, samples: int = SAMPLES
) -> dict[str, Difference]:
    """Compare two runs' captions of the same images, in the same order, by each metric.

    Intervals come from the paired bootstrap (Koehn 2004), two-sided p-values from approximate
    randomization (Riezler and Maxwell 2005, "On some pitfalls in automatic evaluation and
    significance testing for MT").
    """
    n_images = len(first.rouge_l)
    resampled = np.concatenate(
        [
            second.resampled(weights) - first.resampled(weights)
            for weights in _bootstrap_weights(n_images, samples)
        ]
    )
    first_corpus, second_corpus = first.corpus, second.corpus
    observed = np.array([second_corpus[name] - first_corpus[name] for name in METRICS])
    as_large = np.zeros(len(METRICS))
    for swap in _random_swaps(n_images, samples):
        by_chance = second.swapped(first, swap) - first.swapped(second, swap)
        # The tolerance keeps rounding errors from separating equal differences.
        as_large += (np.abs(by_chance) >= np.abs(observed) - 1e-9).sum(axis=0)
    p_values = (as_large + 1) / (samples + 1)
    intervals = _percentile_intervals(resampled)
    return {
        name: Difference(first_corpus[name], second_corpus[name], interval, float(p_value))
        for name, interval, p_value in zip(METRICS, intervals, p_values, strict=True)
    }


def _bootstrap_weights(n_images: int, samples: int) -> Iterator[Floats]:
    """Yield how often each image is drawn, with replacement, in batches of samples, (B, C)."""
    random = np.random.default_rng(_SEED)
    for start in range(0, samples, _BATCH):
        size = min(_BATCH, samples - start)
        drawn = random.integers(0, n_images, (size, n_images))
        drawn += n_images * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * n_images)
        yield counts.reshape(size, n_images).astype(np.float64)


def _random_swaps(n_images: int, samples: int) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield whether each image's captions are exchanged, in batches of samples, (B, C)."""
    random = np.random.default_rng(_SEED)
    for start in range(0, samples, _BATCH):
        yield random.integers(0, 2, (min(_BATCH, samples - start), n_images)).astype(bool)


def _percentile_intervals(samples: Floats) -> list[Interval]:
    """Return the interval that holds the middle 95 % of each column."""
    tail = (100 - _CONFIDENCE) / 2
    low, high = np.percentile(samples, [tail, 100 - tail], axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))
