"""Classifier-free guidance: words that the photo makes more likely count for more.

Ho and Salimans (2022), "Classifier-free diffusion guidance", applied to captions as in Kornblith
et al. (2023), "Guiding image captioning models toward more specific captions". A decoder that was
trained on few photos relies on language more than on the photo. So each word is predicted twice,
with the photo (conditional) and without it (unconditional), and a part of the difference of their
logits is added to the conditional ones. The logits are an affine map of vectors; the vectors are
mixed instead, which is the same and takes one product with the vocabulary in place of two.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.captioner.generation.interfaces import (
    Array,
    Ids,
    Positions,
    StepDecoder,
    SupportsUnconditional,
    attention_maps_of,
)


@dataclass(frozen=True)
class Guided:
    """A `StepDecoder` that applies classifier-free guidance to a decoder.

    Attributes:
        decoder: the trained decoder.
        weight: the logits become conditional + weight * (conditional - unconditional).
    """

    decoder: SupportsUnconditional
    weight: float

    def begin(self, features: npt.NDArray[np.float32]) -> tuple[Any, Any]:
        """Return the conditional state and the unconditional one."""
        return self.decoder.begin(features), self.decoder.begin_unconditional(features)

    def advance(
        self, ids: Ids, photos: Positions, parents: Positions, state: tuple[Any, Any]
    ) -> tuple[Array, tuple[Any, Any]]:
        """Return the guided logits, and both states after the words."""
        vectors, conditional = self.decoder.step(ids, photos, parents, state[0])
        unconditional_vectors, unconditional = self.decoder.step(ids, photos, parents, state[1])
        guided_vectors = vectors + self.weight * (vectors - unconditional_vectors)
        return self.decoder.logits(guided_vectors), (conditional, unconditional)

    def attention_maps(
        self, features: npt.NDArray[np.float32], ids: npt.NDArray[np.int32]
    ) -> Array | None:
        """Return the decoder's maps with the photo; see `SupportsAttentionMaps`."""
        return attention_maps_of(self.decoder, features, ids)


def with_guidance(decoder: SupportsUnconditional, weight: float) -> StepDecoder:
    """Return the decoder with guidance, or the decoder itself if the weight is 0."""
    return Guided(decoder, weight) if weight else decoder
