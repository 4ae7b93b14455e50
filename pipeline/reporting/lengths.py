"""Lengths: what captions score by how many words they have."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.reporting.evaluation import SearchMetrics

_GROUPS = 10  # at most, so that each mean is of some captions


@dataclass(frozen=True)
class LengthGroup:
    """Captions of about the same length.

    Attributes:
        shortest: words of the shortest.
        longest: words of the longest.
        captions: how many there are.
        cider_d: their mean CIDEr-D, x100.
        rouge_l: their mean ROUGE-L, x100.
    """

    shortest: int
    longest: int
    captions: int
    cider_d: float
    rouge_l: float


def by_length(search: SearchMetrics) -> list[LengthGroup]:
    """Group a search's captions by length, the shortest first.

    Captions of one length stay together; neighbouring lengths share a group until it has a
    tenth of all captions.
    """
    lengths = [len(prediction.caption.split()) for prediction in search.predictions]
    return [_group(rows, lengths, search) for rows in _rows(lengths)]


def _rows(lengths: Sequence[int]) -> list[list[int]]:
    least = math.ceil(len(lengths) / _GROUPS)
    groups: list[list[int]] = [[]]
    for length in sorted(set(lengths)):
        if len(groups[-1]) >= least:
            groups.append([])
        groups[-1] += [row for row, other in enumerate(lengths) if other == length]
    if len(groups) > 1 and len(groups[-1]) < least:
        last = groups.pop()
        groups[-1] += last
    return groups


def _group(rows: Sequence[int], lengths: Sequence[int], search: SearchMetrics) -> LengthGroup:
    of_group = [lengths[row] for row in rows]
    return LengthGroup(
        shortest=min(of_group),
        longest=max(of_group),
        captions=len(rows),
        cider_d=float(np.mean(search.scores.cider_d[rows])),
        rouge_l=float(np.mean(search.scores.rouge_l[rows])),
    )
