"""References: photos' captions by people, counted once, to score candidates against."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.metrics.ngrams import Grams, Ints, Lexicon, Tokens


@dataclass(frozen=True)
class Shared:
    """The n-grams that candidates share with references of their photos, of one order.

    Attributes:
        row: (M,) a row of the candidates' `Grams`, ascending, once for each reference.
        reference: (M,) the reference.
        count: (M,) how often the reference has the n-gram.
    """

    row: Ints
    reference: Ints
    count: Ints


class References:
    """The references of photos.

    Attributes:
        groups: for each photo its references, as tokens.
        first: (N + 1,) photo i has the references first[i] to first[i + 1].
        lengths: (R,) tokens of each reference.
        lexicon: the numbers of the references' n-grams.
    """

    def __init__(self, groups: Sequence[Sequence[Tokens]]) -> None:
        """Count the n-grams of `groups`, a photo's references each.

        Raises:
            ValueError: no photo, or a photo without references.
        """
        if not groups or not all(groups):
            raise ValueError("every photo needs a reference, and there has to be a photo")
        self.groups = groups
        captions = [reference for group in groups for reference in group]
        sizes = np.fromiter(map(len, groups), np.int64, len(groups))
        self.first = np.concatenate([[0], np.cumsum(sizes)])
        self.lengths = np.fromiter(map(len, captions), np.int64, len(captions))
        self.lexicon = Lexicon(captions)
        photo = np.repeat(np.arange(len(groups)), sizes)
        self._tables = [
            _Table.of(grams, photo, size)
            for grams, size in zip(self.lexicon.grams, self.lexicon.sizes, strict=True)
        ]

    def photos_with(self, order: int) -> Ints:
        """Return, for every n-gram of that order, how many photos have a reference with it."""
        return self._tables[order - 1].photos_with

    def shared(self, grams: Grams, photo: Ints, order: int) -> Shared:
        """Join candidates with the references of their photos.

        Args:
            grams: the candidates'.
            photo: (C,) the photo of each candidate.
            order: of the n-grams.
        """
        return self._tables[order - 1].join(photo[grams.caption], grams.gram)

    def pairs(self, photo: Ints) -> tuple[Ints, Ints]:
        """Return every pair of a candidate, whose photo is given, and a reference of its."""
        return _ranges(self.first[photo], self.first[photo + 1])


@dataclass(frozen=True)
class _Table:
    """The n-grams of all references, of one order, sorted by photo and n-gram."""

    size: int
    keys: Ints
    reference: Ints
    count: Ints
    photos_with: Ints

    @staticmethod
    def of(grams: Grams, photo: Ints, size: int) -> "_Table":
        keys = photo[grams.caption] * size + grams.gram
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        first_of_photo = np.ones(len(keys), bool)
        first_of_photo[1:] = keys[1:] != keys[:-1]
        photos_with = np.bincount(keys[first_of_photo] % max(size, 1), minlength=size)
        return _Table(size, keys, grams.caption[order], grams.count[order], photos_with)

    def join(self, photo: Ints, gram: Ints) -> Shared:
        known = np.flatnonzero(gram < self.size)
        keys = photo[known] * self.size + gram[known]
        begin = np.searchsorted(self.keys, keys, "left")
        end = np.searchsorted(self.keys, keys, "right")
        row, place = _ranges(begin, end)
        return Shared(known[row], self.reference[place], self.count[place])


def _ranges(begin: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Return all numbers from begin[i] to below end[i], and the i of each, for every i."""
    sizes = end - begin
    which = np.repeat(np.arange(len(begin)), sizes)
    before = np.cumsum(sizes) - sizes
    return which, np.arange(len(which)) - (before - begin)[which]
