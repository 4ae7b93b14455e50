"""Guidance: what a photo makes likelier than no photo counts for more.

Classifier-free guidance (Ho and Salimans 2022), of captions as in Kornblith et al. (2023),
"Guiding image captioning models toward more specific captions". A decoder that learned from few
photos listens more to language than to what it sees; at every word it is asked twice, of the
photo and of a photo that tells nothing, and the difference is added once more in part.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.captioner.generation.interfaces import (
    Array,
    StepDecoder,
    SupportsAttentionMaps,
    SupportsUnconditional,
)


@dataclass(frozen=True)
class Guided:
    """A decoder with guidance in its steps; see `search.StepDecoder`.

    Attributes:
        decoder: trained.
        strength: the share of the difference of logits, with the photo and without one, that is
            added to those with the photo.
    """

    decoder: SupportsUnconditional
    strength: float

    def begin(self, features: npt.NDArray[np.float32]) -> list[Array]:
        """Return the state with the photos, and after it the state without."""
        return [*self.decoder.begin(features), *self.decoder.begin_unconditional(features)]

    def advance(
        self, words: npt.NDArray[np.int32], state: list[Array]
    ) -> tuple[Array, list[Array]]:
        """Return the guided logits, and both states after `words`."""
        half = len(state) // 2
        logits, seeing = self.decoder.advance(words, state[:half])
        blind_logits, blind = self.decoder.advance(words, state[half:])
        return logits + self.strength * (logits - blind_logits), [*seeing, *blind]

    def attention_maps(
        self, features: npt.NDArray[np.float32], ids: npt.NDArray[np.int32]
    ) -> Array | None:
        """Return where the decoder looks with the photo; see `maps.SupportsAttentionMaps`."""
        return (
            self.decoder.attention_maps(features, ids)
            if isinstance(self.decoder, SupportsAttentionMaps)
            else None
        )


def with_guidance(decoder: SupportsUnconditional, strength: float) -> StepDecoder:
    """Return the decoder with guidance, or itself where the strength is 0."""
    return Guided(decoder, strength) if strength else decoder
