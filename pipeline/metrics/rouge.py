"""ROUGE-L (Lin 2004, "ROUGE: a package for automatic evaluation of summaries")."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.metrics.ngrams import Floats, Ints, Tokens

PaddedIds = npt.NDArray[np.int32]

_BETA = 1.2  # weight of recall, as in coco-caption
_MAX_CELLS = 1 << 22  # word ids in memory at a time


def rouge_l(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> Floats:
    """Return the ROUGE-L of each candidate, (C,), x100; that of a corpus is the mean.

    As in coco-caption: it combines the best precision and the best recall, which may come
    from different references.

    Args:
        candidates: one per image.
        references: for each image its references, at least one.
    """
    n_references = np.fromiter(map(len, references), np.int64, len(references))
    first_pair = np.cumsum(n_references) - n_references
    candidate_index = np.repeat(np.arange(len(candidates)), n_references)
    word_ids: dict[str, int] = {}
    candidate_ids = _WordIds.encode(candidates, word_ids)
    reference_ids = _WordIds.encode([r for group in references for r in group], word_ids)
    candidate_lengths = candidate_ids.lengths[candidate_index]
    lcs = np.zeros(len(candidate_index), np.int64)
    # Pairs of similar length go together: one very long caption would pad all the others.
    for pairs in _length_batches(np.maximum(candidate_lengths, reference_ids.lengths)):
        lcs[pairs] = _lcs_lengths(
            candidate_ids.padded(candidate_index[pairs], -1), reference_ids.padded(pairs, -2)
        )
    precision = np.maximum.reduceat(lcs / candidate_lengths, first_pair)
    recall = np.maximum.reduceat(lcs / reference_ids.lengths, first_pair)
    numerator = (1 + _BETA**2) * precision * recall
    denominator = recall + _BETA**2 * precision
    return 100 * np.divide(
        numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0
    )


class _WordIds(NamedTuple):
    """Captions as word ids.

    Attributes:
        ids: word ids of all captions, concatenated.
        offsets: (C,) where each caption begins.
        lengths: (C,) number of words of each caption.
    """

    ids: Ints
    offsets: Ints
    lengths: Ints

    @staticmethod
    def encode(captions: Sequence[Tokens], word_ids: dict[str, int]) -> "_WordIds":
        # coco-caption takes a caption without tokens for one empty token.
        captions = [caption or ("",) for caption in captions]
        lengths = np.fromiter(map(len, captions), np.int64, len(captions))
        numbers = (
            word_ids.setdefault(token, len(word_ids)) for caption in captions for token in caption
        )
        ids = np.fromiter(numbers, np.int64, int(lengths.sum()))
        return _WordIds(ids, np.cumsum(lengths) - lengths, lengths)

    def padded(self, captions: Ints, padding: int) -> PaddedIds:
        """Return the ids of those captions, (N, longest)."""
        columns = np.arange(self.lengths[captions].max(initial=0))
        inside = columns < self.lengths[captions, None]
        rows = np.full(inside.shape, padding, np.int32)
        rows[inside] = self.ids[(self.offsets[captions, None] + columns)[inside]]
        return rows


def _length_batches(lengths: Ints) -> Iterator[Ints]:
    """Yield the indices of all lengths in batches, each within one power of two."""
    powers = np.frexp(lengths)[1]
    for power in np.unique(powers):
        indices = np.flatnonzero(powers == power)
        batch_size = max(1, _MAX_CELLS >> int(power))
        yield from (indices[i : i + batch_size] for i in range(0, len(indices), batch_size))


def _lcs_lengths(first: PaddedIds, second: PaddedIds) -> Ints:
    """Return the length of the longest common subsequence of first[i] and second[i].

    Computes the dynamic-programming table row by row, for all pairs at once.
    """
    row = np.zeros((len(second), second.shape[1] + 1), np.int32)
    for ids in first.T:
        row[:, 1:] = np.maximum(row[:, 1:], row[:, :-1] + (second == ids[:, None]))
        np.maximum.accumulate(row, axis=1, out=row)
    return row[:, -1].astype(np.int64)
