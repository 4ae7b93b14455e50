"""Ensembles: decoders that were trained from different seeds, asked together."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.captioner.generation.interfaces import Array, StepDecoder, SupportsAttentionMaps


class Ensemble:
    """Gives the mean of its members' probabilities of the next word; see `search.StepDecoder`.

    One word after another, not one caption against another: the members may disagree about
    a caption's beginning and still agree about its end.
    """

    def __init__(self, members: Sequence[StepDecoder]) -> None:
        """Take decoders of one vocabulary."""
        self._members = members
        self._sizes: list[int] = []

    def begin(self, features: npt.NDArray[np.float32]) -> list[Array]:
        """Return all members' states, one after another."""
        states = [member.begin(features) for member in self._members]
        self._sizes = [len(state) for state in states]
        return [array for state in states for array in state]

    def advance(
        self, words: npt.NDArray[np.int32], state: list[Array]
    ) -> tuple[Array, list[Array]]:
        """Return the logarithm of the mean of their probabilities, and their states."""
        shares: Any = 0.0
        after: list[Array] = []
        for member, size in zip(self._members, self._sizes, strict=True):
            first = len(after)
            logits, carried = member.advance(words, state[first : first + size])
            after += carried
            shares = shares + _softmax(logits.astype(np.float64))
        # A word that none of them can imagine: its share is below what a float64 can hold.
        return np.log(np.maximum(shares / len(self._members), np.finfo(np.float64).tiny)), after

    def attention_maps(
        self, features: npt.NDArray[np.float32], ids: npt.NDArray[np.int32]
    ) -> Array | None:
        """Return the mean of where its members look; see `maps.SupportsAttentionMaps`."""
        maps = [
            m.attention_maps(features, ids)
            for m in self._members
            if isinstance(m, SupportsAttentionMaps)
        ]
        looked = [shares for shares in maps if shares is not None]
        return np.mean(looked, axis=0) if looked else None


def make_ensemble(members: Sequence[StepDecoder]) -> StepDecoder:
    """Return the members as one: itself if there is but one."""
    return members[0] if len(members) == 1 else Ensemble(members)


def _softmax(logits: Array) -> Array:
    grown = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: Array = grown / grown.sum(axis=-1, keepdims=True)
    return shares
