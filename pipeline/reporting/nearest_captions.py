"""The training caption nearest to each generated caption: whether captions are copies."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.metrics.ngrams import Tokens

_MAX_N = 2  # words and pairs of words: their order counts a little


@dataclass(frozen=True)
class NearestCaption:
    """The training caption that shares the most with a generated caption.

    Attributes:
        caption: the raw training caption; empty if none shares a word.
        is_copy: whether the two are the same, without case and punctuation.
    """

    caption: str
    is_copy: bool


def find_nearest(
    candidates: Sequence[Tokens], training: Sequence[Tokens], raw: Sequence[str]
) -> list[NearestCaption]:
    """Return each candidate's nearest training caption.

    Nearness is the Dice coefficient of their words and pairs of words; of equally near captions
    it is the first in alphabetical order.

    Args:
        candidates: generated captions, as tokens.
        training: the training captions, as tokens.
        raw: the same, as written.
    """
    raw_by_tokens: dict[tuple[str, ...], str] = {}
    for tokens, text in zip(training, raw, strict=True):
        raw_by_tokens.setdefault(tuple(tokens), text)
    captions = sorted(raw_by_tokens)
    wanted = frozenset(gram for tokens in candidates for gram in _grams(tuple(tokens)))
    postings, sizes = _index(captions, wanted)
    nearest: dict[tuple[str, ...], NearestCaption] = {}
    for candidate in map(tuple, candidates):
        if candidate not in nearest:
            row = _nearest_row(_grams(candidate), postings, sizes)
            text = "" if row is None else raw_by_tokens[captions[row]]
            nearest[candidate] = NearestCaption(text, candidate in raw_by_tokens)
    return [nearest[tuple(candidate)] for candidate in candidates]


# An n-gram and the number of its earlier occurrences: shared repetitions count once each.
_Gram = tuple[tuple[str, ...], int]
_Rows = npt.NDArray[np.int64]


def _index(
    captions: Sequence[tuple[str, ...]], wanted: frozenset[_Gram]
) -> tuple[dict[_Gram, _Rows], _Rows]:
    """Return the rows of captions by n-gram, and each caption's number of n-grams.

    Args:
        captions: the training captions.
        wanted: the n-grams to index; the others would take most of the memory.
    """
    rows: dict[_Gram, list[int]] = {}
    sizes = []
    for row, tokens in enumerate(captions):
        grams = _grams(tokens)
        sizes.append(len(grams))
        for gram in wanted.intersection(grams):
            rows.setdefault(gram, []).append(row)
    return {gram: np.array(r) for gram, r in rows.items()}, np.array(sizes, np.int64)


def _grams(tokens: tuple[str, ...]) -> list[_Gram]:
    seen: dict[tuple[str, ...], int] = {}
    grams = []
    for n in range(1, _MAX_N + 1):
        for start in range(len(tokens) - n + 1):
            gram = tokens[start : start + n]
            grams.append((gram, seen.get(gram, 0)))
            seen[gram] = seen.get(gram, 0) + 1
    return grams


def _nearest_row(grams: Sequence[_Gram], postings: dict[_Gram, _Rows], sizes: _Rows) -> int | None:
    """Return the row of the caption with the greatest Dice coefficient; None if all have 0."""
    shared = np.zeros(len(sizes), np.int64)
    for gram in grams:
        if gram in postings:
            shared[postings[gram]] += 1
    if not shared.any():
        return None
    return int(np.argmax(shared / (sizes + len(grams))))
