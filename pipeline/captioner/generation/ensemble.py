"""Ensembles: decoders trained from different seeds, whose probabilities are averaged."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.captioner.generation.interfaces import Array, StepDecoder, attention_maps_of


class Ensemble:
    """A `StepDecoder` that averages its members' probabilities of the next word.

    They are averaged at each word, not for whole captions: members may disagree on how a
    caption begins and still agree on how it goes on.
    """

    def __init__(self, members: Sequence[StepDecoder]) -> None:
        """Take decoders with the same vocabulary."""
        self._members = members
        self._state_sizes: list[int] = []

    def begin(self, features: npt.NDArray[np.float32]) -> list[Array]:
        """Return the states of all members, concatenated."""
        states = [member.begin(features) for member in self._members]
        self._state_sizes = [len(state) for state in states]
        return [array for state in states for array in state]

    def advance(
        self, words: npt.NDArray[np.int32], state: list[Array]
    ) -> tuple[Array, list[Array]]:
        """Return the logarithm of the members' mean probabilities, and their next states."""
        total: Any = 0.0
        next_state: list[Array] = []
        for member, size in zip(self._members, self._state_sizes, strict=True):
            first = len(next_state)
            logits, member_state = member.advance(words, state[first : first + size])
            next_state += member_state
            total = total + _softmax(logits.astype(np.float64))
        # A word that is impossible for all members has a probability below what float64 can
        # represent; its logarithm must stay finite.
        mean = np.maximum(total / len(self._members), np.finfo(np.float64).tiny)
        return np.log(mean), next_state

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


def _softmax(logits: Array) -> Array:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: Array = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities
