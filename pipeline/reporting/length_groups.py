"""Length groups: mean scores of captions by their number of words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.reporting.evaluation import SearchMetrics

_MAX_GROUPS = 10  # so that each mean is taken over enough captions


@dataclass(frozen=True)
class LengthGroup:
    """Captions of about the same length.

    Attributes:
        shortest: number of words of the shortest caption.
        longest: number of words of the longest caption.
        captions: number of captions.
        cider_d: their mean CIDEr-D, x100.
        rouge_l: their mean ROUGE-L, x100.
    """

    shortest: int
    longest: int
    captions: int
    cider_d: float
    rouge_l: float


def group_by_length(search: SearchMetrics) -> list[LengthGroup]:
    """Group a search's captions by length, the shortest first.

    Captions of one length stay together; neighbouring lengths share a group until it has a
    tenth of all captions.
    """
    lengths = [len(prediction.caption.split()) for prediction in search.predictions]
    return [_group(rows, lengths, search) for rows in _group_rows(lengths)]


def _group_rows(lengths: Sequence[int]) -> list[list[int]]:
    min_size = math.ceil(len(lengths) / _MAX_GROUPS)
    groups: list[list[int]] = [[]]
    for length in sorted(set(lengths)):
        if len(groups[-1]) >= min_size:
            groups.append([])
        groups[-1] += [row for row, other in enumerate(lengths) if other == length]
    if len(groups) > 1 and len(groups[-1]) < min_size:
        last = groups.pop()
        groups[-1] += last
    return groups


def _group(rows: Sequence[int], lengths: Sequence[int], search: SearchMetrics) -> LengthGroup:
    group_lengths = [lengths[row] for row in rows]
    return LengthGroup(
        shortest=min(group_lengths),
        longest=max(group_lengths),
        captions=len(rows),
        cider_d=float(np.mean(search.scores.cider_d[rows])),
        rouge_l=float(np.mean(search.scores.rouge_l[rows])),
    )
