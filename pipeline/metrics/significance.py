"""Resampling: confidence intervals of scores, and whether two runs differ by more than chance."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.metrics.ngrams import Floats
from pipeline.metrics.scorer import METRICS, Scores
from pipeline.progress import Progress

# The interval's ends are the 25th samples from either end (Davison and Hinkley 1997, "Bootstrap
# methods and their application", section 5.2), so that it excludes 0 exactly if p < 0.05.
SAMPLES = 1000
SIGNIFICANCE_LEVEL = 0.05
# Below it, one photo is more than 3 % of the score, the intervals, which know only these photos,
# are too narrow, and resampling finds too many differences: docs/decisions.md has the rates.
MIN_IMAGES = 30
_ROUNDING = 1e-9  # equal scores, summed in another order, differ by less
_SEED = 0  # the same scores always get the same intervals
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
        p_value: two-sided, from the same samples.
    """

    first: float
    second: float
    interval: Interval
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether the p-value is below 0.05, which is whether the interval excludes 0."""
        return self.p_value < SIGNIFICANCE_LEVEL


def few_images_note(n_images: int) -> str | None:
    """Return why nothing can be said about chance from so few images; None if they suffice.

    The one rule of `caption score`, `caption compare` and the report.
    """
    if n_images >= MIN_IMAGES:
        return None
    plural = "s are" if n_images > 1 else " is"
    return (
        f"{n_images} photo{plural} too few to tell a difference from chance: use {MIN_IMAGES} "
        "or more, better some hundreds"
    )


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

    The paired bootstrap (Koehn 2004; recommended for BLEU and its like by Dror et al. 2018, "The
    hitchhiker's guide to testing statistical significance in natural language processing").
    Interval and p-value come from the same samples, so that they never contradict each other.
    """
    differences = np.concatenate(
        [
            second.resampled(weights) - first.resampled(weights)
            for weights in _bootstrap_weights(len(first.rouge_l), samples)
        ]
    )
    differences[np.abs(differences) < _ROUNDING] = 0
    return {
        name: Difference(first.corpus[name], second.corpus[name], interval, p_value)
        for name, interval, p_value in zip(
            METRICS, _percentile_intervals(differences), _p_values(differences), strict=True
        )
    }


def _bootstrap_weights(n_images: int, samples: int) -> Iterator[Floats]:
    """Yield how often each image is drawn, with replacement, in batches of samples, (B, C)."""
    random = np.random.default_rng(_SEED)
    with Progress("resample", samples, "samples") as progress:
        for start in range(0, samples, _BATCH):
            size = min(_BATCH, samples - start)
            drawn = random.integers(0, n_images, (size, n_images))
            drawn += n_images * np.arange(size)[:, None]
            counts = np.bincount(drawn.ravel(), minlength=size * n_images)
            yield counts.reshape(size, n_images).astype(np.float64)
            progress.advance(size)


def _percentile_intervals(samples: Floats) -> list[Interval]:
    """Return the interval that holds the middle 95 % of each column."""
    ordered = np.sort(samples, axis=0)
    rank = max(1, int((len(samples) + 1) * SIGNIFICANCE_LEVEL / 2))  # of the ends, from outside
    low, high = ordered[rank - 1], ordered[len(samples) - rank]
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _p_values(differences: Floats) -> list[float]:
    """Return for each column the largest level at which the percentile interval excludes 0.

    The observed corpus counts as one more sample, so that no p-value is 0 (Davison and Hinkley
    1997, section 4.2).
    """
    not_above = (differences <= 0).sum(axis=0)
    not_below = (differences >= 0).sum(axis=0)
    tails = (np.minimum(not_above, not_below) + 1) / (len(differences) + 1)
    p_values: list[float] = np.minimum(1, 2 * tails).tolist()
    return p_values
