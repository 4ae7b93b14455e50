"""ROUGE-L (Lin 2004, "ROUGE: a package for automatic evaluation of summaries")."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.metrics.ngrams import Ints, Tokens

Padded = npt.NDArray[np.int32]

_BETA = 1.2  # weight of recall, as in coco-caption
_CELLS = 1 << 22  # of the table of all pairs, at most so many at a time


def rouge_l(
    candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]
) -> npt.NDArray[np.float64]:
    """Return each candidate's ROUGE-L, (C,), x100; a corpus' is their mean.

    As coco-caption computes it: the best precision and the best recall, which may be of
    different references.

    Args:
        candidates: one a photo.
        references: each photo's, at least one.
    """
    sizes = np.fromiter(map(len, references), np.int64, len(references))
    first = np.cumsum(sizes) - sizes
    pair = np.repeat(np.arange(len(candidates)), sizes)
    ids: dict[str, int] = {}
    ours = _Rows.of(candidates, ids)
    theirs = _Rows.of([r for group in references for r in group], ids)
    longest = np.zeros(len(pair), np.int64)
    # Captions of like length together: one that is very long would make all as long.
    for some in _alike(np.maximum(ours.lengths[pair], theirs.lengths)):
        longest[some] = _longest_common(ours.padded(pair[some], -1), theirs.padded(some, -2))
    # coco-caption takes a caption without tokens for one empty token, which matches nothing.
    precision = np.maximum.reduceat(longest / np.maximum(ours.lengths[pair], 1), first)
    recall = np.maximum.reduceat(longest / np.maximum(theirs.lengths, 1), first)
    above = (1 + _BETA**2) * precision * recall
    below = recall + _BETA**2 * precision
    return 100 * np.divide(above, below, out=np.zeros_like(above), where=below > 0)


class _Rows(NamedTuple):
    """Captions as numbers, one for each word.

    Attributes:
        numbers: of all captions, one after another.
        first: where each one's begin, (C,).
        lengths: how many each has, (C,).
    """

    numbers: Ints
    first: Ints
    lengths: Ints

    @staticmethod
    def of(captions: Sequence[Tokens], ids: dict[str, int]) -> "_Rows":
        lengths = np.fromiter(map(len, captions), np.int64, len(captions))
        numbers = (ids.setdefault(token, len(ids)) for caption in captions for token in caption)
        every = np.fromiter(numbers, np.int64, int(lengths.sum()))
        return _Rows(every, np.cumsum(lengths) - lengths, lengths)

    def padded(self, some: Ints, padding: int) -> Padded:
        """Return some of the captions as (N, longest)."""
        columns = np.arange(self.lengths[some].max(initial=0))
        inside = columns < self.lengths[some, None]
        rows = np.full(inside.shape, padding, np.int32)
        rows[inside] = self.numbers[(self.first[some, None] + columns)[inside]]
        return rows


def _alike(lengths: Ints) -> Iterator[Ints]:
    """Yield the positions of all lengths, those of one power of two together, few at a time."""
    powers = np.frexp(lengths)[1]
    for power in np.unique(powers):
        positions = np.flatnonzero(powers == power)
        count = max(1, _CELLS >> int(power))
        yield from (positions[i : i + count] for i in range(0, len(positions), count))


def _longest_common(ours: Padded, theirs: Padded) -> Ints:
    """Return the length of the longest common subsequence of ours[i] and theirs[i].

    A row of the usual table at a time, for all pairs at once.
    """
    row = np.zeros((len(theirs), theirs.shape[1] + 1), np.int32)
    for tokens in ours.T:
        row[:, 1:] = np.maximum(row[:, 1:], row[:, :-1] + (theirs == tokens[:, None]))
        np.maximum.accumulate(row, axis=1, out=row)
    return row[:, -1].astype(np.int64)
