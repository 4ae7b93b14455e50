"""Resampling: how far scores would move with other photos, and whether two runs differ."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.metrics.scorer import METRICS, Floats, Scores

SAMPLES = 1000
_SEED = 0  # equal scores, equal intervals
_LEVEL = 95  # percent
# Weights of so many samples are in memory at a time, for tens of thousands of photos.
_AT_ONCE = 100

Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """How a run differs from another in one metric.

    Attributes:
        ours: the score of one.
        theirs: of the other.
        interval: in which 95 % of the differences, theirs less ours, lie when photos are
            drawn anew.
        p_value: how often a difference so large comes about where it is chance which of the
            two a caption came from.
    """

    ours: float
    theirs: float
    interval: Interval
    p_value: float


def intervals(scores: Scores, samples: int = SAMPLES) -> dict[str, Interval]:
    """Return, for each metric, where 95 % of the scores lie when photos are drawn anew.

    The percentile bootstrap (Koehn 2004, "Statistical significance tests for machine
    translation evaluation"). It tells what other photos would change, not other training.
    """
    found = np.concatenate([scores.weighted(w) for w in _drawn(len(scores.rouge_l), samples)])
    return dict(zip(METRICS, _middle(found), strict=True))


def differences(ours: Scores, theirs: Scores, samples: int = SAMPLES) -> dict[str, Difference]:
    """Compare two runs' captions of the same photos, in the same order, by each metric.

    Intervals by the paired bootstrap (Koehn 2004), p-values by approximate randomization
    (Riezler and Maxwell 2005, "On some pitfalls in automatic evaluation and significance
    testing for MT"), two-sided.
    """
    photos = len(ours.rouge_l)
    apart = np.concatenate([theirs.weighted(w) - ours.weighted(w) for w in _drawn(photos, samples)])
    ours_now, theirs_now = ours.corpus, theirs.corpus
    observed = np.array([theirs_now[name] - ours_now[name] for name in METRICS])
    as_large = np.zeros(len(METRICS))
    for swapped in _swaps(photos, samples):
        by_chance = theirs.mixed(ours, swapped) - ours.mixed(theirs, swapped)
        # Rounding must not tell apart what is equal.
        as_large += (np.abs(by_chance) >= np.abs(observed) - 1e-9).sum(axis=0)
    p_values = (as_large + 1) / (samples + 1)
    return {
        name: Difference(ours_now[name], theirs_now[name], interval, float(p_value))
        for name, interval, p_value in zip(METRICS, _middle(apart), p_values, strict=True)
    }


def _drawn(photos: int, samples: int) -> Iterator[Floats]:
    """Yield how often each photo is drawn, with replacement, some samples at a time."""
    random = np.random.default_rng(_SEED)
    for begin in range(0, samples, _AT_ONCE):
        size = min(_AT_ONCE, samples - begin)
        drawn = random.integers(0, photos, (size, photos)) + photos * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * photos)
        yield times.reshape(size, photos).astype(np.float64)


def _swaps(photos: int, samples: int) -> Iterator[np.ndarray[tuple[int, int], np.dtype[np.bool_]]]:
    random = np.random.default_rng(_SEED)
    for begin in range(0, samples, _AT_ONCE):
        yield random.integers(0, 2, (min(_AT_ONCE, samples - begin), photos)).astype(bool)


def _middle(samples: Floats) -> list[Interval]:
    """Return, column by column, between what values the middle 95 % lie."""
    beyond = (100 - _LEVEL) / 2
    low, high = np.percentile(samples, [beyond, 100 - beyond], axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))
