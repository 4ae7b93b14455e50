"""n-grams as numbers: captions as flat arrays, so that whole corpora are counted at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAX_ORDER = 4
Tokens = Sequence[str]
Ints = npt.NDArray[np.int64]

# An n-gram is looked up by the number of all its words but the last, and that word's. A
# corpus of so many different words, two million, does not fit in memory anyway.
_WORD_BITS = 21


@dataclass(frozen=True)
class Grams:
    """The n-grams of captions, of one order, each different one once a caption.

    Attributes:
        caption: (G,) the caption, from 0, ascending.
        gram: (G,) the n-gram's number.
        count: (G,) how often it is in that caption.
    """

    caption: Ints
    gram: Ints
    count: Ints


class Lexicon:
    """Numbers for the words and n-grams of some captions; others get numbers beyond those."""

    def __init__(self, captions: Sequence[Tokens]) -> None:
        """Number all n-grams of `captions`.

        Attributes set:
            grams: of `captions`, by order: MAX_ORDER of them.
            sizes: how many different n-grams of each order there are; greater numbers are
                of n-grams that `captions` do not have.
        """
        self._word_ids: dict[str, int] = {}
        self._known: list[Ints] = []
        self.grams = list(self._numbered(captions, self._word_ids, learn=True))
        self.sizes = [len(self._word_ids), *map(len, self._known)]

    def read(self, captions: Sequence[Tokens]) -> list[Grams]:
        """Number the n-grams of other captions, by order."""
        # Unknown words are told apart: each adds to a caption's length as a vector.
        return list(self._numbered(captions, dict(self._word_ids), learn=False))

    def _numbered(
        self, captions: Sequence[Tokens], word_ids: dict[str, int], *, learn: bool
    ) -> Iterator[Grams]:
        lengths = np.fromiter(map(len, captions), np.int64, len(captions))
        caption = np.repeat(np.arange(len(captions)), lengths)
        numbers = (word_ids.setdefault(t, len(word_ids)) for tokens in captions for t in tokens)
        words = np.fromiter(numbers, np.int64, len(caption))
        yield _counted(caption, words)
        grams = words  # by the place of their first words
        for order in range(2, MAX_ORDER + 1):
            last = words[order - 1 :]
            inside = caption[: len(last)] == caption[order - 1 :]
            keys = grams[: len(last)][inside] << _WORD_BITS | last[inside]
            grams = np.zeros(len(last), np.int64)
            if learn:
                known, grams[inside] = np.unique(keys, return_inverse=True)
                self._known.append(known)
            else:
                grams[inside] = _look_up(self._known[order - 2], keys)
            yield _counted(caption[: len(last)][inside], grams[inside])


def _look_up(known: Ints, keys: Ints) -> Ints:
    """Return the place of each key in `known`, which is sorted; beyond its end if not there."""
    places = np.searchsorted(known, keys)
    found = np.zeros(len(keys), bool)
    within = places < len(known)
    found[within] = known[places[within]] == keys[within]
    places[~found] = len(known) + np.unique(keys[~found], return_inverse=True)[1]
    return places


def _counted(caption: Ints, gram: Ints) -> Grams:
    """Count equal n-grams of a caption."""
    size = int(gram.max(initial=0)) + 1
    keys, count = np.unique(caption * size + gram, return_counts=True)
    return Grams(*np.divmod(keys, size), count)
