"""CIDEr-D (Vedantam et al. 2015, "CIDEr: consensus-based image description evaluation")."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.metrics.ngrams import MAX_ORDER, Grams, Ints, Tokens
from pipeline.metrics.references import References

Floats = npt.NDArray[np.float64]

_SIGMA = 6.0  # tokens; how far lengths may differ
# CIDEr-D is ten times a mean of cosines; figures in papers are a hundred times that.
_SCALE = 10 * 100


class CiderD:
    """Scores candidates against references, whose weights are computed once.

    As coco-caption computes it: a word's weight falls with the number of photos whose
    references have it, counts are clipped, and lengths are compared in bigrams.
    """

    def __init__(self, references: References) -> None:
        """Weigh the n-grams of `references` by how few of their photos have them."""
        self._references = references
        photos = len(references.groups)
        # What no reference has counts as what one photo has.
        self._unknown_weight = np.log(photos)
        self._weights: list[Floats] = []
        self._norms: list[Floats] = []
        for order, grams in enumerate(references.lexicon.grams, 1):
            weights = np.log(photos / np.maximum(references.photos_with(order), 1))
            self._weights.append(weights)
            self._norms.append(_norms(grams, weights[grams.gram], len(references.lengths)))

    def scores(self, candidates: Sequence[Tokens], photo: Ints | None = None) -> Floats:
        """Return each candidate's CIDEr-D, (C,), x100; a corpus' is their mean.

        Args:
            candidates: the captions.
            photo: (C,) the photo of each; None is one for each photo, in order.
        """
        if photo is None:
            photo = np.arange(len(candidates))
        return self.of_grams(self._references.lexicon.read(candidates), photo)

    def of_grams(self, grams: Sequence[Grams], photo: Ints) -> Floats:
        """Return what `scores` does, for candidates that the references' lexicon has read."""
        references = self._references
        pair_candidate, pair_reference = references.pairs(photo)
        first_pair = np.searchsorted(pair_candidate, np.arange(len(photo)))
        # Of bigrams, as coco-caption has it: a word fewer.
        lengths = _sums(grams[1].count, grams[1].caption, len(photo))
        apart = lengths[pair_candidate] - np.maximum(references.lengths[pair_reference] - 1, 0)
        cosines = np.zeros(len(pair_candidate))
        for order in range(1, MAX_ORDER + 1):
            of_order = grams[order - 1]
            weight = self._weigh(of_order.gram, order)
            shared = references.shared(of_order, photo, order)
            candidate = of_order.caption[shared.row]
            clipped = np.minimum(of_order.count[shared.row], shared.count)
            pair = first_pair[candidate] + shared.reference - references.first[photo[candidate]]
            products = clipped * shared.count * weight[shared.row] ** 2
            norms = _norms(of_order, weight, len(photo))[pair_candidate]
            norms = norms * self._norms[order - 1][pair_reference]
            dots = _sums(products, pair, len(pair_candidate))
            cosines += np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0)
        cosines *= np.exp(-(apart**2) / (2 * _SIGMA**2)) / MAX_ORDER
        sums = _sums(cosines, pair_candidate, len(photo))
        scores: Floats = _SCALE * sums / (references.first[photo + 1] - references.first[photo])
        return scores

    def _weigh(self, gram: Ints, order: int) -> Floats:
        known = self._weights[order - 1]
        weights = np.full(len(gram), self._unknown_weight)
        inside = gram < len(known)
        weights[inside] = known[gram[inside]]
        return weights


def _norms(grams: Grams, weights: Floats, captions: int) -> Floats:
    """Return the length of each caption as a vector of weighted counts."""
    return np.sqrt(_sums((grams.count * weights) ** 2, grams.caption, captions))


def _sums(values: Ints | Floats, of: Ints, size: int) -> Floats:
    # Of nothing it returns integers.
    sums: Floats = np.bincount(of, weights=values, minlength=size).astype(np.float64)
    return sums
