"""The interfaces of decoders in a search, and the hypotheses that a search returns.

Decoders on Keras and OpenVINO, ensembles and guided decoders all implement these interfaces.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

LogProbs = npt.NDArray[np.float64]
Array = npt.NDArray[Any]
Ids = npt.NDArray[np.int32]
Positions = npt.NDArray[np.int_]

_LENGTH_PENALTY = 0.8  # exponent of the number of steps; docs/results.md compares it with others


class StepDecoder(Protocol):
    """A decoder that can be searched word by word, whatever runtime computes it.

    A step extends R hypotheses of P photos, each by a word. Photos whose captions are complete
    have no hypotheses any more. A state is of the decoder's own type.
    """

    def begin(self, features: npt.NDArray[np.float32]) -> Any:
        """Return the state before the first word for features (P, ...): a row for each photo."""

    def advance(
        self, ids: Ids, photos: Positions, parents: Positions, state: Any
    ) -> tuple[Array, Any]:
        """Extend hypotheses.

        Args:
            ids: the words of each hypothesis so far, <start> first, (R, T).
            photos: the position of its photo in the features of `begin`, (R,), ascending.
            parents: the row of the state that it extends by its last word, (R,).
            state: the state that `begin` or the previous step returned.

        Returns:
            The logits of the next word, (R, V), which the caller may change, and the state after
            the words, with a row for each hypothesis.
        """


@dataclass(frozen=True)
class Hypothesis:
    """A caption that a search proposes.

    Attributes:
        ids: the ids of its words, without special tokens.
        log_probability: natural logarithm of the decoder's probability of these words and of
            <end> after them.
        finished: whether the decoder ended it with <end>; if not, it was cut off at the word limit.
    """

    ids: tuple[int, ...]
    log_probability: float
    finished: bool

    @property
    def score(self) -> float:
        """Log-probability, normalized by length; the hypotheses of a beam are ranked by it.

        The sum over all steps would prefer short captions, their mean long ones (Wu et al. 2016,
        "Google's neural machine translation system", section 7).
        """
        return self.log_probability / float((len(self.ids) + 1) ** _LENGTH_PENALTY)


def rank(hypotheses: Sequence[Hypothesis], scores: Sequence[float]) -> list[Hypothesis]:
    """Return hypotheses by descending score; an empty one comes last, as it says nothing.

    Hypotheses that were cut off have no rank of their own: the <end> that was forced on them is in
    their score, and few words before a likely <end> need not be better than many.
    """
    pairs = zip(hypotheses, scores, strict=True)
    ranked = sorted(pairs, key=lambda pair: (not pair[0].ids, -pair[1], pair[0].ids))
    return [hypothesis for hypothesis, _ in ranked]


@runtime_checkable
class Reranker(Protocol):
    """A decoder that reranks hypotheses by more than their likelihood."""

    def rerank(
        self, features: npt.NDArray[np.float32], beams: Sequence[Sequence[Hypothesis]]
    ) -> list[list[Hypothesis]]:
        """Return the hypotheses of each photo, best first; an empty one must stay last.

        Args:
            features: the photos' features, (N, ...); a search passes the array that it passed to
                `begin`.
            beams: the hypotheses of each photo.
        """


class SupportsUnconditional(StepDecoder, Protocol):
    """A decoder that can predict words without a photo too, for classifier-free guidance.

    Its logits are an affine map of vectors, so what guidance does to logits it can do to them.
    """

    def begin_unconditional(self, features: npt.NDArray[np.float32]) -> Any:
        """Return the state before the first word for as many photos without information."""

    def step(
        self, ids: Ids, photos: Positions, parents: Positions, state: Any
    ) -> tuple[Array, Any]:
        """Extend hypotheses as `advance` does, but return vectors (R, N) in place of logits."""

    def logits(self, vectors: Array) -> Array:
        """Return the logits (R, V) of vectors (R, N): those of `advance` for those of `step`."""


@runtime_checkable
class SupportsAttentionMaps(Protocol):
    """A decoder that can return its attention weights: one on Keras, or an ensemble of them."""

    def attention_maps(
        self, features: npt.NDArray[np.float32], ids: npt.NDArray[np.int32]
    ) -> Array | None:
        """Return the weight of each position for each next word; they sum to 1.

        Args:
            features: (B, P, D), or (B, D) with one position.
            ids: the words so far, (B, T), <start> first.

        Returns:
            (B, T, P); None for a decoder without attention.
        """


def attention_maps_of(
    decoder: StepDecoder, features: npt.NDArray[np.float32], ids: npt.NDArray[np.int32]
) -> Array | None:
    """Return a decoder's attention maps; None if it does not support them."""
    if isinstance(decoder, SupportsAttentionMaps):
        return decoder.attention_maps(features, ids)
    return None
