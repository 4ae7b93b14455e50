"""Likeness of captions to one another, for choosing among them without references."""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from pipeline.scoring.ngrams import MAX_ORDER

_SIGMA = 6.0  # words; how far lengths may differ, as in CIDEr-D


def likeness(captions: Sequence[Sequence[Hashable]]) -> npt.NDArray[np.float64]:
    """Return how like each caption is to each, (C, C), 0 to 1.

    CIDEr-D (Vedantam et al. 2015) with all n-grams weighing the same: counts are clipped to
    those of the column's caption, lengths compared. On Flickr8k the choice was no better with
    n-grams weighed by how rare they are (docs/experiments.md), which would need a corpus.

    Args:
        captions: C of them, each of words or of their ids.
    """
    lengths = np.array([len(caption) for caption in captions])
    cosines = np.zeros((len(captions), len(captions)))
    for order in range(1, MAX_ORDER + 1):
        counts = _counts(captions, order)
        clipped = np.minimum(counts[:, None], counts[None])
        dots = (clipped * counts[None]).sum(axis=-1)
        norms = np.sqrt((counts**2).sum(axis=-1))
        both = np.outer(norms, norms)
        cosines += np.divide(dots, both, out=np.zeros_like(dots), where=both > 0)
    apart = lengths[:, None] - lengths[None]
    found: npt.NDArray[np.float64] = cosines / MAX_ORDER * np.exp(-(apart**2) / (2 * _SIGMA**2))
    return found


def _counts(captions: Sequence[Sequence[Hashable]], order: int) -> npt.NDArray[np.float64]:
    """Return how often each caption has each n-gram of that order, (C, n-grams)."""
    grams = [
        Counter(tuple(caption[i : i + order]) for i in range(len(caption) - order + 1))
        for caption in captions
    ]
    columns = {
        gram: column for column, gram in enumerate(dict.fromkeys(g for c in grams for g in c))
    }
    counts = np.zeros((len(captions), len(columns)))
    for row, of_caption in enumerate(grams):
        for gram, count in of_caption.items():
            counts[row, columns[gram]] = count
    return counts
