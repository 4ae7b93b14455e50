"""Ensembles: decoders trained from different seeds, whose probabilities are averaged."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.captioner.generation.interfaces import (
    Array,
    Ids,
    LogProbs,
    Positions,
    StepDecoder,
    attention_maps_of,
)

_CACHED_ROWS = 64  # rows whose probabilities are computed at once, in a processor's cache


class Ensemble:
    """A `StepDecoder` that averages its members' probabilities of the next word.

    They are averaged at each word, not for whole captions: members may disagree on how a
    caption begins and still agree on how it goes on.
    """

    def __init__(self, members: Sequence[StepDecoder]) -> None:
        """Take decoders with the same vocabulary."""
        self._members = members

    def begin(self, features: npt.NDArray[np.float32]) -> list[Any]:
        """Return the members' states."""
        return [member.begin(features) for member in self._members]

    def advance(
        self, ids: Ids, photos: Positions, parents: Positions, state: list[Any]
    ) -> tuple[LogProbs, list[Any]]:
        """Return the logarithm of the members' mean probabilities, and their next states."""
        results = [
            member.advance(ids, photos, parents, member_state)
            for member, member_state in zip(self._members, state, strict=True)
        ]
        total = np.zeros(results[0][0].shape)
        for logits, _ in results:
            _add_probabilities(total, logits)
        # A word that is impossible for all members has a probability below what float64 can
        # represent; its logarithm must stay finite.
        total /= len(self._members)
        np.maximum(total, np.finfo(np.float64).tiny, out=total)
        return np.log(total, out=total), [next_state for _, next_state in results]

    def attention_maps(
        self, features: npt.NDArray[np.float32], ids: npt.NDArray[np.int32]
    ) -> Array | None:
        """Return the mean of the members' attention maps; see `SupportsAttentionMaps`."""
        maps = [attention_maps_of(member, features, ids) for member in self._members]
        available = [weights for weights in maps if weights is not None]
        return np.mean(available, axis=0) if available else None


def make_ensemble(members: Sequence[StepDecoder]) -> StepDecoder:
    """Return an ensemble of the members, or the member itself if there is only one."""
    return members[0] if len(members) == 1 else Ensemble(members)


def _add_probabilities(total: LogProbs, logits: Array) -> None:
    """Add the probabilities of each row of logits (R, V) to `total` (R, V)."""
    for start in range(0, len(logits), _CACHED_ROWS):
        rows = slice(start, start + _CACHED_ROWS)
        block = logits[rows].astype(np.float64)
        block -= block.max(axis=1, keepdims=True)
        np.exp(block, out=block)
        block /= block.sum(axis=1, keepdims=True)
        total[rows] += block
