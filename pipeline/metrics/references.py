"""References: the captions that people wrote, counted once to score many candidates against."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.metrics.ngrams import Ints, NgramCounts, NgramIndex, Tokens


@dataclass(frozen=True)
class Matches:
    """The n-grams of one order that candidates share with the references of their images.

    Attributes:
        row: (M,) a row of the candidates' `NgramCounts`, ascending, once for each reference.
        reference: (M,) index of the reference.
        count: (M,) how often the reference contains the n-gram.
    """

    row: Ints
    reference: Ints
    count: Ints


class References:
    """The references of a set of images.

    Attributes:
        by_image: for each image its references, as tokens.
        offsets: (N + 1,) image i has the references offsets[i] to offsets[i + 1].
        lengths: (R,) number of tokens of each reference.
        ngrams: the n-grams of all references.
    """

    def __init__(self, by_image: Sequence[Sequence[Tokens]]) -> None:
        """Count the n-grams of all references.

        Args:
            by_image: for each image its references, as tokens.

        Raises:
            ValueError: there is no image, or an image has no references.
        """
        if not by_image or not all(by_image):
            raise ValueError("there must be at least one photo, and each needs a reference")
        self.by_image = by_image
        captions = [caption for references in by_image for caption in references]
        n_references = np.fromiter(map(len, by_image), np.int64, len(by_image))
        self.offsets = np.concatenate([[0], np.cumsum(n_references)])
        self.lengths = np.fromiter(map(len, captions), np.int64, len(captions))
        self.ngrams = NgramIndex(captions)
        image = np.repeat(np.arange(len(by_image)), n_references)
        self._tables = [
            _NgramTable.build(counts, image, size)
            for counts, size in zip(self.ngrams.counts, self.ngrams.sizes, strict=True)
        ]

    def document_frequency(self, order: int) -> Ints:
        """Return, for each n-gram of that order, how many images have a reference with it."""
        return self._tables[order - 1].document_frequency

    def match(self, counts: NgramCounts, image: Ints, order: int) -> Matches:
        """Join the n-grams of candidates with those of their images' references.

        Args:
            counts: the candidates' n-grams of that order.
            image: (C,) index of each candidate's image.
            order: number of words in an n-gram.
        """
        return self._tables[order - 1].join(image[counts.caption], counts.ngram)

    def pairs(self, image: Ints) -> tuple[Ints, Ints]:
        """Return all pairs of a candidate and a reference of its image, as two index arrays.

        Args:
            image: (C,) index of each candidate's image.
        """
        return _concatenate_ranges(self.offsets[image], self.offsets[image + 1])


@dataclass(frozen=True)
class _NgramTable:
    """The n-grams of one order in all references, sorted by image and n-gram."""

    size: int
    keys: Ints
    reference: Ints
    count: Ints
    document_frequency: Ints

    @staticmethod
    def build(counts: NgramCounts, image: Ints, size: int) -> "_NgramTable":
        keys = image[counts.caption] * size + counts.ngram
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        first_in_image = np.ones(len(keys), bool)
        first_in_image[1:] = keys[1:] != keys[:-1]
        frequency = np.bincount(keys[first_in_image] % max(size, 1), minlength=size)
        return _NgramTable(size, keys, counts.caption[order], counts.count[order], frequency)

    def join(self, image: Ints, ngram: Ints) -> Matches:
        seen = np.flatnonzero(ngram < self.size)
        keys = image[seen] * self.size + ngram[seen]
        begin = np.searchsorted(self.keys, keys, "left")
        end = np.searchsorted(self.keys, keys, "right")
        row, position = _concatenate_ranges(begin, end)
        return Matches(seen[row], self.reference[position], self.count[position])


def _concatenate_ranges(begin: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Return the i of each element, and the elements, of all ranges begin[i] to end[i] in a row."""
    sizes = end - begin
    index = np.repeat(np.arange(len(begin)), sizes)
    offsets = np.cumsum(sizes) - sizes
    return index, np.arange(len(index)) - (offsets - begin)[index]
