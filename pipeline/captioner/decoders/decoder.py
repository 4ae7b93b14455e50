"""Decoders: graphs with shared weights, for training on whole sequences and for stepwise search."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.backend import keras
from pipeline.captioner.decoders import attention, inject, merge
from pipeline.captioner.decoders.layers import DecoderGraphs
from pipeline.captioner.model_config import DecoderConfig
from pipeline.errors import InputError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Decoder:
    """One set of weights in several graphs; a `StepDecoder` on Keras.

    Attributes:
        config: what the graphs were built from.
        graphs: the graphs for training, search and attention maps.
    """

    config: DecoderConfig
    graphs: DecoderGraphs

    @property
    def network(self) -> Any:
        """The graph that is trained, see `DecoderGraphs`."""
        return self.graphs.network

    @property
    def null_features(self) -> npt.NDArray[np.float32]:
        """The features (D,) of a photo without information, at each position: 0 once normalized."""
        if self.config.feature_norm == "center":
            return np.asarray(self.network.get_layer("feature_norm").mean)
        return np.zeros(self.config.feature_shape[-1], np.float32)

    def begin(self, features: npt.NDArray[np.float32]) -> list[Array]:
        """Run `graphs.start`."""
        state = self.graphs.start.predict_on_batch(features)
        return [np.asarray(array) for array in (state if isinstance(state, list) else [state])]

    def begin_unconditional(self, features: npt.NDArray[np.float32]) -> list[Array]:
        """Run `graphs.start` on null features; see `interfaces.SupportsUnconditional`."""
        return self.begin(np.broadcast_to(self.null_features, features.shape).astype(np.float32))

    def unconditional_start(self) -> Any:
        """Return `begin_unconditional` as a `keras.Model`, which can be converted."""
        features = keras.Input(self.config.feature_shape, name="features")
        null_features = keras.layers.Rescaling(
            0.0, offset=self.null_features, name="null_features"
        )(features)
        return keras.Model(features, self.graphs.start(null_features), name="unconditional_start")

    def advance(
        self, words: npt.NDArray[np.int32], state: list[Array]
    ) -> tuple[Array, list[Array]]:
        """Run `graphs.step`."""
        logits, *next_state = self.graphs.step.predict_on_batch([words, *state])
        return np.asarray(logits), [np.asarray(array) for array in next_state]

    def attention_maps(
        self, features: npt.NDArray[np.float32], ids: npt.NDArray[np.int32]
    ) -> Array | None:
        """Run `graphs.maps` if there is one; see `interfaces.SupportsAttentionMaps`."""
        if self.graphs.maps is None:
            return None
        return np.asarray(self.graphs.maps.predict_on_batch([features, ids]))


DECODERS: Mapping[str, Callable[[DecoderConfig], DecoderGraphs]] = {
    "merge": merge.build,
    "init_inject": inject.build_init_inject,
    "pre_inject": inject.build_pre_inject,
    "par_inject": inject.build_par_inject,
    "attention": attention.build,
}


def build_decoder(config: DecoderConfig) -> Decoder:
    """Build a decoder with initial weights, drawn from Keras' global seed.

    Raises:
        InputError: there is no such decoder, or it cannot use such features.
    """
    build = DECODERS.get(config.name)
    if build is None:
        raise InputError(
            f"there is no decoder {config.name!r}: set train.decoder in params.yaml to one of "
            f"{', '.join(DECODERS)}"
        )
    return Decoder(config, build(config))
