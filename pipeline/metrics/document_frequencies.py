"""How many photos' captions have each n-gram, in a table that can be stored and looked up."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.metrics.ngrams import MAX_ORDER, Floats, Ints, NgramIndex
from pipeline.metrics.references import References

Keys = npt.NDArray[np.uint64]

# 2^64 divided by the golden ratio, and odd (Knuth, "The art of computer programming", 6.4).
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class DocumentFrequencies:
    """The document frequencies of the n-grams, of all orders, in a corpus.

    The tokens are numbers: ids of a vocabulary, so that equal n-grams have equal hashes anywhere.

    An n-gram of one image's captions alone is left out: CIDEr-D gives it the idf of an unseen one.

    Attributes:
        n_images: number of images of the corpus.
        keys: (G,) hashes of n-grams, ascending. Of ten million n-grams, two have the same hash with
            a probability of 1 to 370,000.
        counts: (G,) number of images whose captions have the n-gram, 2 or more.
    """

    n_images: int
    keys: Keys
    counts: Ints

    @staticmethod
    def count(references: References) -> "DocumentFrequencies":
        """Count the n-grams of references."""
        orders = range(1, MAX_ORDER + 1)
        counts = np.concatenate([references.document_frequency(order) for order in orders])
        keys = np.concatenate([_hashes(references.ngrams, order) for order in orders])
        frequent = np.flatnonzero(counts > 1)
        frequent = frequent[np.argsort(keys[frequent])]
        return DocumentFrequencies(len(references.by_image), keys[frequent], counts[frequent])

    def idf(self, index: NgramIndex, order: int) -> Floats:
        """Return the inverse document frequency of each n-gram of an index: log(images / count)."""
        keys = _hashes(index, order)
        counts = np.ones(len(keys))
        if len(self.keys):
            positions = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
            counts = np.where(self.keys[positions] == keys, self.counts[positions], counts)
        idf: Floats = np.log(self.n_images / counts)
        return idf


def _hashes(index: NgramIndex, order: int) -> Keys:
    """Hash each n-gram of an index, by a polynomial of its tokens modulo 2^64."""
    numbers = np.array([int(word) for word in index.words], np.uint64)
    ngrams = numbers[index.ngrams(order)]
    keys = np.zeros(len(ngrams), np.uint64)
    for words in ngrams.T:
        keys = (keys + words + np.uint64(1)) * _MULTIPLIER
    return keys
