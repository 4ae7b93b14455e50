"""Interfaces: what a search needs of a decoder, and what it returns.

Every decoder, ensemble and guidance is one of these, whatever runs it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

LogProbs = npt.NDArray[np.float64]
Array = npt.NDArray[Any]


class StepDecoder(Protocol):
    """What a search asks of a decoder, by whatever it is run."""

    def begin(self, features: npt.NDArray[np.float32]) -> list[Array]:
        """Return the state before the first word, arrays (B, ...), of features (B, ...)."""

    def advance(
        self, words: npt.NDArray[np.int32], state: list[Array]
    ) -> tuple[Array, list[Array]]:
        """Return the next word's logits (B, V) and the state after `words` (B,)."""


@dataclass(frozen=True)
class Hypothesis:
    """A caption that a search proposes.

    Attributes:
        ids: of its words, without markers.
        log_probability: natural logarithm of the decoder's probability of these words and,
            where it is finished, of <end> after them.
        finished: whether the model ended it, rather than the limit of words.
    """

    ids: tuple[int, ...]
    log_probability: float
    finished: bool

    @property
    def score(self) -> float:
        """Mean log-probability of its steps, by which a beam's hypotheses are ranked.

        Without the mean a beam prefers short captions (Wu et al. 2016, section 7).
        """
        return self.log_probability / max(len(self.ids) + self.finished, 1)


@runtime_checkable
class Reranker(Protocol):
    """A decoder with an opinion of finished hypotheses that is more than their likelihood."""

    def rerank(
        self, features: npt.NDArray[np.float32], found: Sequence[Sequence[Hypothesis]]
    ) -> list[list[Hypothesis]]:
        """Return the hypotheses of each photo, best first, of its features (N, ...).

        What the limit of words cut off has to stay behind what ended.
        """


class SupportsUnconditional(StepDecoder, Protocol):
    """A decoder that can be asked without a photo as well."""

    def begin_unconditional(self, features: npt.NDArray[np.float32]) -> list[Array]:
        """Return the state before the first word, of as many photos that tell nothing."""


@runtime_checkable
class SupportsAttentionMaps(Protocol):
    """A decoder that can be asked where it looks: one on Keras, or several of these."""

    def attention_maps(
        self, features: npt.NDArray[np.float32], ids: npt.NDArray[np.int32]
    ) -> Array | None:
        """Return how much each place counts for each next word, 1 in all.

        Args:
            features: (B, P, D), or (B, D), where there are no places.
            ids: (B, T), the words so far, <start> first.

        Returns:
            (B, T, P); None where the decoder does not look at places.
        """
