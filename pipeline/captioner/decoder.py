"""The interface of decoders: whole sequences to learn from, single steps to search with."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.captioner import merge
from pipeline.captioner.description import DecoderConfig

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Decoder:
    """One set of weights in three graphs, each a `keras.Model`.

    Attributes:
        config: what it was built from.
        network: [features (B, D) or (B, P, D), ids (B, T)] to logits (B, T, V): at each
            position the next word, given the words up to there (teacher forcing).
        start: features to the state before the first word, a list of arrays (B, ...).
        step: [ids (B,), *state] to [logits (B, V), *state].
    """

    config: DecoderConfig
    network: Any
    start: Any
    step: Any

    def begin(self, features: npt.NDArray[np.float32]) -> list[Array]:
        """Run `start`."""
        state = self.start.predict_on_batch(features)
        return [np.asarray(array) for array in (state if isinstance(state, list) else [state])]

    def advance(
        self, words: npt.NDArray[np.int32], state: list[Array]
    ) -> tuple[Array, list[Array]]:
        """Run `step`."""
        logits, *after = self.step.predict_on_batch([words, *state])
        return np.asarray(logits), [np.asarray(array) for array in after]


# A decoder is a function of a `DecoderConfig`'s fields, less the name, to the three graphs.
DECODERS: Mapping[str, Callable[..., tuple[Any, Any, Any]]] = {"merge": merge.build}


def build_decoder(config: DecoderConfig) -> Decoder:
    """Build a decoder with initial weights, drawn from Keras' global seed."""
    sizes = asdict(config)
    return Decoder(config, *DECODERS[sizes.pop("name")](**sizes))
