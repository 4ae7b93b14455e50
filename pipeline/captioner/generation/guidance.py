"""Classifier-free guidance: words that the photo makes more likely count for more.

Ho and Salimans (2022), "Classifier-free diffusion guidance", applied to captions as in Kornblith
et al. (2023), "Guiding image captioning models toward more specific captions". A decoder that was
trained on few photos relies on language more than on the photo. So at each word its logits are
computed twice, with the photo (conditional) and without it (unconditional), and a part of their
difference is added to the conditional ones.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.captioner.generation.interfaces import (
    Array,
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

    def begin(self, features: npt.NDArray[np.float32]) -> list[Array]:
        """Return the conditional state followed by the unconditional one."""
        return [*self.decoder.begin(features), *self.decoder.begin_unconditional(features)]

    def advance(
        self, words: npt.NDArray[np.int32], state: list[Array]
    ) -> tuple[Array, list[Array]]:
        """Return the guided logits, and both states after `words`."""
        half = len(state) // 2
        logits, conditional = self.decoder.advance(words, state[:half])
        unconditional_logits, unconditional = self.decoder.advance(words, state[half:])
        guided_logits = logits + self.weight * (logits - unconditional_logits)
        return guided_logits, [*conditional, *unconditional]

    def attention_maps(
        self, features: npt.NDArray[np.float32], ids: npt.NDArray[np.int32]
    ) -> Array | None:
        """Return the decoder's maps with the photo; see `SupportsAttentionMaps`."""
        return attention_maps_of(self.decoder, features, ids)


def with_guidance(decoder: SupportsUnconditional, weight: float) -> StepDecoder:
    """Return the decoder with guidance, or the decoder itself if the weight is 0."""
    return Guided(decoder, weight) if weight else decoder
