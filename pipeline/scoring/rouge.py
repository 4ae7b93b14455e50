"""ROUGE-L (Lin 2004, "ROUGE: a package for automatic evaluation of summaries")."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from pipeline.scoring.ngrams import Ints, Tokens

Rows = npt.NDArray[np.int32]

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
    ours, our_lengths = _numbered(candidates, ids)
    theirs, their_lengths = _numbered([r for group in references for r in group], ids)
    longest = np.zeros(len(theirs), np.int64)
    # Captions of like length together: one that is very long would make all as long.
    for some in _alike(np.maximum(our_lengths[pair], their_lengths)):
        longest[some] = _longest_common(
            _padded([ours[p] for p in pair[some]], -1), _padded([theirs[i] for i in some], -2)
        )
    # coco-caption takes a caption without tokens for one empty token, which matches nothing.
    precision = np.maximum.reduceat(longest / np.maximum(our_lengths[pair], 1), first)
    recall = np.maximum.reduceat(longest / np.maximum(their_lengths, 1), first)
    above = (1 + _BETA**2) * precision * recall
    below = recall + _BETA**2 * precision
    return 100 * np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _numbered(captions: Sequence[Tokens], ids: dict[str, int]) -> tuple[list[Ints], Ints]:
    """Return the captions' tokens as numbers, and how many each has."""
    rows = [
        np.fromiter((ids.setdefault(token, len(ids)) for token in caption), np.int64, len(caption))
        for caption in captions
    ]
    return rows, np.fromiter(map(len, captions), np.int64, len(captions))


def _alike(lengths: Ints) -> Iterator[Ints]:
    """Yield the positions of all lengths, those of one power of two together, few at a time."""
    powers = np.frexp(lengths)[1]
    for power in np.unique(powers):
        positions = np.flatnonzero(powers == power)
        count = max(1, _CELLS >> int(power))
        yield from (positions[i : i + count] for i in range(0, len(positions), count))


def _padded(rows: Sequence[Ints], padding: int) -> Rows:
    """Return rows of numbers as (N, longest)."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    padded = np.full((len(rows), int(lengths.max(initial=0))), padding, np.int32)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = np.concatenate(rows)
    return padded


def _longest_common(ours: Rows, theirs: Rows) -> Ints:
    """Return the length of the longest common subsequence of ours[i] and theirs[i].

    A row of the usual table at a time, for all pairs at once.
    """
    row = np.zeros((len(theirs), theirs.shape[1] + 1), np.int32)
    for tokens in ours.T:
        row[:, 1:] = np.maximum(row[:, 1:], row[:, :-1] + (theirs == tokens[:, None]))
        np.maximum.accumulate(row, axis=1, out=row)
    return row[:, -1].astype(np.int64)
