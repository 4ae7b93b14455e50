"""CIDEr-D (Vedantam et al. 2015, "CIDEr: consensus-based image description evaluation")."""

from collections.abc import Sequence

import numpy as np

from pipeline.metrics.document_frequencies import DocumentFrequencies
from pipeline.metrics.ngrams import MAX_ORDER, Floats, Ints, NgramCounts, Tokens, group_sums
from pipeline.metrics.references import References

_SIGMA = 6.0  # tokens; width of the Gaussian length penalty
# CIDEr-D is ten times a mean of cosines; papers report a hundred times that.
_SCALE = 10 * 100


class CiderD:
    """Scores candidates against references, whose tf-idf vectors are computed once.

    As in coco-caption: an n-gram's idf falls with the number of images whose references
    contain it, counts are clipped, and the length penalty compares numbers of bigrams.
    """

    def __init__(self, references: References, corpus: DocumentFrequencies | None = None) -> None:
        """Compute the idf of all n-grams of `references`, and the references' norms.

        Args:
            references: the references.
            corpus: where idf comes from, if not from the references. All candidates must then be
                among the references, be it of an image that no candidate is scored against.
        """
        self._references = references
        n_images = len(references.by_image)
        # coco-caption gives unseen n-grams the idf of n-grams that one image has.
        self._unseen_idf = np.log(n_images)
        self._idf: list[Floats] = []
        self._norms: list[Floats] = []
        for order, counts in enumerate(references.ngrams.counts, 1):
            if corpus is None:
                idf = np.log(n_images / np.maximum(references.document_frequency(order), 1))
            else:
                idf = corpus.idf(references.ngrams, order)
            self._idf.append(idf)
            self._norms.append(_norms(counts, idf[counts.ngram], len(references.lengths)))

    def scores(self, candidates: Sequence[Tokens], image: Ints | None = None) -> Floats:
        """Return the CIDEr-D of each candidate, (C,), x100; that of a corpus is the mean.

        Args:
            candidates: the captions.
            image: (C,) index of each candidate's image; None: one candidate per image, in order.
        """
        if image is None:
            image = np.arange(len(candidates))
        return self.score_ngrams(self._references.ngrams.count(candidates), image)

    def score_ngrams(self, ngrams: Sequence[NgramCounts], image: Ints) -> Floats:
        """Return the same as `scores`, given the candidates' n-grams by order.

        Args:
            ngrams: the candidates' n-grams, counted with the references' index.
            image: (C,) index of each candidate's image.
        """
        references = self._references
        pair_candidate, pair_reference = references.pairs(image)
        first_pair = np.searchsorted(pair_candidate, np.arange(len(image)))
        # coco-caption measures length in bigrams: one less than the number of words.
        lengths = group_sums(ngrams[1].count, ngrams[1].caption, len(image))
        reference_lengths = np.maximum(references.lengths[pair_reference] - 1, 0)
        length_difference = lengths[pair_candidate] - reference_lengths
        cosines = np.zeros(len(pair_candidate))
        for order in range(1, MAX_ORDER + 1):
            counts = ngrams[order - 1]
            idf = self._look_up_idf(counts.ngram, order)
            matches = references.match(counts, image, order)
            candidate = counts.caption[matches.row]
            clipped = np.minimum(counts.count[matches.row], matches.count)
            pair = first_pair[candidate] + matches.reference - references.offsets[image[candidate]]
            products = clipped * matches.count * idf[matches.row] ** 2
            norms = _norms(counts, idf, len(image))[pair_candidate]
            norms = norms * self._norms[order - 1][pair_reference]
            dots = group_sums(products, pair, len(pair_candidate))
            cosines += np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0)
        cosines *= np.exp(-(length_difference**2) / (2 * _SIGMA**2)) / MAX_ORDER
        sums = group_sums(cosines, pair_candidate, len(image))
        n_references = references.offsets[image + 1] - references.offsets[image]
        scores: Floats = _SCALE * sums / n_references
        return scores

    def _look_up_idf(self, ngram: Ints, order: int) -> Floats:
        seen_idf = self._idf[order - 1]
        idf = np.full(len(ngram), self._unseen_idf)
        seen = ngram < len(seen_idf)
        idf[seen] = seen_idf[ngram[seen]]
        return idf


def _norms(counts: NgramCounts, idf: Floats, n_captions: int) -> Floats:
    """Return the norm of each caption's tf-idf vector, (n_captions,)."""
    return np.sqrt(group_sums((counts.count * idf) ** 2, counts.caption, n_captions))
