"""BLEU (Papineni et al. 2002, "BLEU: a method for automatic evaluation"), of a corpus."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.metrics.ngrams import MAX_ORDER, Grams, Ints
from pipeline.metrics.references import References

# What a corpus' BLEU is computed from, summed over captions: for each order the matches and
# the n-grams there are, then the tokens of the captions and those of the references.
COUNTS = 2 * MAX_ORDER + 2


def bleu_counts(references: References, grams: Sequence[Grams], photo: Ints) -> Ints:
    """Return what each candidate adds to a corpus' BLEU, (C, COUNTS).

    Matches are clipped by the most that any one reference has. The length to compare with
    is that of the reference closest in length, the shorter one of two as close.

    Args:
        references: of all photos.
        grams: the candidates' n-grams, as the references' lexicon has read them.
        photo: (C,) the photo of each candidate.
    """
    counts = np.zeros((len(photo), COUNTS), np.int64)
    for order, of_order in enumerate(grams, 1):
        counts[:, MAX_ORDER + order - 1] = _sums(of_order.count, of_order.caption, len(photo))
        shared = references.shared(of_order, photo, order)
        allowed = np.zeros(len(of_order.gram), np.int64)
        np.maximum.at(allowed, shared.row, shared.count)
        matches = np.minimum(allowed, of_order.count)
        counts[:, order - 1] = _sums(matches, of_order.caption, len(photo))
    lengths = counts[:, MAX_ORDER]
    counts[:, -2] = lengths
    counts[:, -1] = _closest(references, lengths, photo)
    return counts


def bleu(counts: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """Return BLEU-1 to BLEU-4, x100, (..., MAX_ORDER), from sums of counts, (..., COUNTS).

    An order without a single match makes it and the higher ones 0.
    """
    sums = counts.astype(np.float64)
    matches, totals = sums[..., :MAX_ORDER], sums[..., MAX_ORDER : 2 * MAX_ORDER]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(matches > 0, np.log(matches / totals), -np.inf)
        brevity_penalty = np.minimum(0, 1 - sums[..., -1:] / sums[..., -2:-1])
    means = np.cumsum(logs, axis=-1) / np.arange(1, MAX_ORDER + 1)
    return 100 * np.exp(np.where(np.isfinite(means), means + brevity_penalty, -np.inf))


def _closest(references: References, lengths: Ints, photo: Ints) -> Ints:
    pair, reference = references.pairs(photo)
    theirs = references.lengths[reference]
    # The distance first, then the length itself.
    keys = np.abs(theirs - lengths[pair]) * (int(theirs.max()) + 1) + theirs
    first = np.searchsorted(pair, np.arange(len(photo)))
    nearest: Ints = np.minimum.reduceat(keys, first) % (int(theirs.max()) + 1)
    return nearest


def _sums(values: Ints, of: Ints, size: int) -> Ints:
    return np.bincount(of, weights=values, minlength=size).astype(np.int64)
