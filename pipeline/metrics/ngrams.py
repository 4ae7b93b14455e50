"""n-grams as integer ids, in flat arrays, so that a whole corpus is counted at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAX_ORDER = 4
Tokens = Sequence[str]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# The key of an n-gram is the id of its first n - 1 words, shifted, and the id of its last word.
# A corpus with more distinct words than fit here, two million, would not fit in memory anyway.
_WORD_BITS = 21


@dataclass(frozen=True)
class NgramCounts:
    """The n-grams of one order in some captions: one row for each distinct n-gram of a caption.

    Attributes:
        caption: (G,) index of the caption, ascending.
        ngram: (G,) id of the n-gram.
        count: (G,) how often the caption contains it.
    """

    caption: Ints
    ngram: Ints
    count: Ints


class NgramIndex:
    """Ids for the words and n-grams of a set of captions; unseen ones get ids beyond those.

    Attributes:
        counts: the n-grams of the indexed captions, one `NgramCounts` for each order.
        sizes: number of distinct n-grams of each order; ids from there on are unseen n-grams.
    """

    def __init__(self, captions: Sequence[Tokens]) -> None:
        """Index all n-grams of `captions`."""
        self._word_ids: dict[str, int] = {}
        self._keys: list[Ints] = []  # by order from 2, sorted; the position is the id
        self.counts = list(self._count(captions, self._word_ids, build=True))
        self.sizes = [len(self._word_ids), *map(len, self._keys)]

    @property
    def words(self) -> list[str]:
        """The indexed words, by id."""
        return list(self._word_ids)

    def ngrams(self, order: int) -> Ints:
        """Return the ids of the words of each indexed n-gram, (size of the order, order)."""
        word_ids = np.arange(len(self._word_ids))[:, None]
        for keys in self._keys[: order - 1]:
            last_words = keys & ((1 << _WORD_BITS) - 1)
            word_ids = np.column_stack([word_ids[keys >> _WORD_BITS], last_words])
        return word_ids

    def count(self, captions: Sequence[Tokens]) -> list[NgramCounts]:
        """Count the n-grams of other captions, by order."""
        # Each unseen word gets its own id: each adds to the norm of a caption's vector.
        return list(self._count(captions, dict(self._word_ids), build=False))

    def _count(
        self, captions: Sequence[Tokens], word_ids: dict[str, int], *, build: bool
    ) -> Iterator[NgramCounts]:
        lengths = np.fromiter(map(len, captions), np.int64, len(captions))
        caption = np.repeat(np.arange(len(captions)), lengths)
        ids = (word_ids.setdefault(token, len(word_ids)) for tokens in captions for token in tokens)
        words = np.fromiter(ids, np.int64, len(caption))
        yield _count_distinct(caption, words)
        ngrams = words  # by the position of their first word
        for order in range(2, MAX_ORDER + 1):
            last_words = words[order - 1 :]
            inside = caption[: len(last_words)] == caption[order - 1 :]
            keys = ngrams[: len(last_words)][inside] << _WORD_BITS | last_words[inside]
            ngrams = np.zeros(len(last_words), np.int64)
            if build:
                distinct_keys, ngrams[inside] = np.unique(keys, return_inverse=True)
                self._keys.append(distinct_keys)
            else:
                ngrams[inside] = _look_up(self._keys[order - 2], keys)
            yield _count_distinct(caption[: len(last_words)][inside], ngrams[inside])


def group_sums(values: Ints | Floats, groups: Ints, n_groups: int) -> Floats:
    """Return the sum of the values of each group, (n_groups,).

    Args:
        values: (G,).
        groups: (G,) the group of each value, from 0.
        n_groups: number of groups.
    """
    # Without values, bincount returns integers.
    sums: Floats = np.bincount(groups, weights=values, minlength=n_groups).astype(np.float64)
    return sums


def _look_up(sorted_keys: Ints, keys: Ints) -> Ints:
    """Return the position of each key in `sorted_keys`; unseen keys get positions past its end."""
    positions = np.searchsorted(sorted_keys, keys)
    seen = np.zeros(len(keys), bool)
    in_range = positions < len(sorted_keys)
    seen[in_range] = sorted_keys[positions[in_range]] == keys[in_range]
    positions[~seen] = len(sorted_keys) + np.unique(keys[~seen], return_inverse=True)[1]
    return positions


def _count_distinct(caption: Ints, ngram: Ints) -> NgramCounts:
    """Count the distinct n-grams of each caption."""
    size = int(ngram.max(initial=0)) + 1
    keys, count = np.unique(caption * size + ngram, return_counts=True)
    return NgramCounts(*np.divmod(keys, size), count)
