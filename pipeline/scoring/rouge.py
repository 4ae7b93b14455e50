"""ROUGE-L (Lin 2004, "ROUGE: a package for automatic evaluation of summaries")."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.scoring.ngrams import Ints, Tokens

Rows = npt.NDArray[np.int32]

_BETA = 1.2  # weight of recall, as in coco-caption


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
    ours, our_lengths = _padded(candidates, ids, -1)
    theirs, their_lengths = _padded([r for group in references for r in group], ids, -2)
    longest = _longest_common(ours, theirs, pair)
    # coco-caption takes a caption without tokens for one empty token, which matches nothing.
    precision = np.maximum.reduceat(longest / np.maximum(our_lengths[pair], 1), first)
    recall = np.maximum.reduceat(longest / np.maximum(their_lengths, 1), first)
    above = (1 + _BETA**2) * precision * recall
    below = recall + _BETA**2 * precision
    return 100 * np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _padded(captions: Sequence[Tokens], ids: dict[str, int], padding: int) -> tuple[Rows, Ints]:
    """Return the captions as numbers, (C, longest), and their lengths."""
    lengths = np.fromiter(map(len, captions), np.int64, len(captions))
    rows = np.full((len(captions), int(lengths.max(initial=0))), padding, np.int32)
    numbers = (ids.setdefault(token, len(ids)) for caption in captions for token in caption)
    inside = np.arange(rows.shape[1]) < lengths[:, None]
    rows[inside] = np.fromiter(numbers, np.int64, int(lengths.sum()))
    return rows, lengths


def _longest_common(ours: Rows, theirs: Rows, pair: Ints) -> Ints:
    """Return the length of the longest common subsequence of ours[pair[i]] and theirs[i].

    A row of the usual table at a time, for all pairs at once.
    """
    row = np.zeros((len(theirs), theirs.shape[1] + 1), np.int32)
    for tokens in ours.T:
        row[:, 1:] = np.maximum(row[:, 1:], row[:, :-1] + (theirs == tokens[pair, None]))
        np.maximum.accumulate(row, axis=1, out=row)
    return row[:, -1].astype(np.int64)
