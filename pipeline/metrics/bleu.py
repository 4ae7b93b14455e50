"""Corpus BLEU (Papineni et al. 2002, "BLEU: a method for automatic evaluation")."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.metrics.ngrams import MAX_ORDER, Floats, Ints, NgramCounts, group_sums
from pipeline.metrics.references import References

# Corpus BLEU follows from these counts, summed over captions: the matches of each order, the
# n-grams of each order, the tokens of the candidates and the tokens of the references.
COUNTS = 2 * MAX_ORDER + 2

# coco-caption adds these to numerators and denominators, so that none is 0.
_TINY, _SMALL = 1e-15, 1e-9


def bleu_counts(references: References, ngrams: Sequence[NgramCounts], image: Ints) -> Ints:
    """Return the counts that each candidate adds to corpus BLEU, (C, COUNTS).

    Matches are clipped by the highest count in any one reference. The reference length is that
    of the reference closest in length; of two that are equally close, the shorter one.

    Args:
        references: the references of all images.
        ngrams: the candidates' n-grams by order, counted with `references.ngrams`.
        image: (C,) index of each candidate's image.
    """
    counts = np.zeros((len(image), COUNTS), np.int64)
    for order, candidates in enumerate(ngrams, 1):
        counts[:, MAX_ORDER + order - 1] = group_sums(
            candidates.count, candidates.caption, len(image)
        )
        matches = references.match(candidates, image, order)
        max_count = np.zeros(len(candidates.ngram), np.int64)
        np.maximum.at(max_count, matches.row, matches.count)
        clipped = np.minimum(max_count, candidates.count)
        counts[:, order - 1] = group_sums(clipped, candidates.caption, len(image))
    lengths = counts[:, MAX_ORDER]
    counts[:, -2] = lengths
    counts[:, -1] = _closest_lengths(references, lengths, image)
    return counts


def bleu(counts: npt.NDArray[np.generic]) -> Floats:
    """Return BLEU-1 to BLEU-4, x100, (..., MAX_ORDER), from sums of counts, (..., COUNTS).

    Smoothed as in coco-caption: an order without a match gives a BLEU near 0, and one without an
    n-gram, as captions of three words have it of order 4, not quite so near.
    """
    sums = counts.astype(np.float64)
    matches, totals = sums[..., :MAX_ORDER], sums[..., MAX_ORDER : 2 * MAX_ORDER]
    log_precisions = np.log((matches + _TINY) / (totals + _SMALL))
    length_ratio = (sums[..., -2:-1] + _TINY) / (sums[..., -1:] + _SMALL)
    means = np.cumsum(log_precisions, axis=-1) / np.arange(1, MAX_ORDER + 1)
    return 100 * np.exp(means + np.minimum(0, 1 - 1 / length_ratio))


def _closest_lengths(references: References, lengths: Ints, image: Ints) -> Ints:
    """Return the length of the reference closest in length to each candidate, (C,)."""
    pair, reference = references.pairs(image)
    reference_lengths = references.lengths[reference]
    # Sort keys: the distance first, then the length itself.
    base = int(reference_lengths.max()) + 1
    keys = np.abs(reference_lengths - lengths[pair]) * base + reference_lengths
    first_pair = np.searchsorted(pair, np.arange(len(image)))
    closest: Ints = np.minimum.reduceat(keys, first_pair) % base
    return closest
