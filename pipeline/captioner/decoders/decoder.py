"""The interface of decoders: whole sequences to learn from, single steps to search with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.backend import keras
from pipeline.captioner.decoders import attention, inject, merge
from pipeline.captioner.decoders.layers import Graphs
from pipeline.captioner.model_config import DecoderConfig
from pipeline.errors import InputError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Decoder:
    """One set of weights in several graphs.

    Attributes:
        config: what it was built from.
        graphs: to learn, to search and to look with.
    """

    config: DecoderConfig
    graphs: Graphs

    @property
    def network(self) -> Any:
        """What learns, see `Graphs`."""
        return self.graphs.network

    @property
    def null_features(self) -> npt.NDArray[np.float32]:
        """Features of a photo that tells nothing, (D,) for each place: 0 once prepared."""
        if self.config.feature_norm == "center":
            return np.asarray(self.network.get_layer("feature_norm").mean)
        return np.zeros(self.config.feature_shape[-1], np.float32)

    def begin(self, features: npt.NDArray[np.float32]) -> list[Array]:
        """Run `start`."""
        state = self.graphs.start.predict_on_batch(features)
        return [np.asarray(array) for array in (state if isinstance(state, list) else [state])]

    def begin_unconditional(self, features: npt.NDArray[np.float32]) -> list[Array]:
        """Run `start` of photos that tell nothing; see `guidance.SupportsUnconditional`."""
        return self.begin(np.broadcast_to(self.null_features, features.shape).astype(np.float32))

    def unconditional_start(self) -> Any:
        """Return a `keras.Model` of what `begin_unconditional` does, to be converted."""
        features = keras.Input(self.config.feature_shape, name="features")
        unseen = keras.layers.Rescaling(0.0, offset=self.null_features, name="nothing")(features)
        return keras.Model(features, self.graphs.start(unseen), name="blind_start")

    def advance(
        self, words: npt.NDArray[np.int32], state: list[Array]
    ) -> tuple[Array, list[Array]]:
        """Run `step`."""
        logits, *after = self.graphs.step.predict_on_batch([words, *state])
        return np.asarray(logits), [np.asarray(array) for array in after]

    def attention_maps(
        self, features: npt.NDArray[np.float32], ids: npt.NDArray[np.int32]
    ) -> Array | None:
        """Run `maps`, where there are any; see `maps.SupportsAttentionMaps`."""
        if self.graphs.maps is None:
            return None
        return np.asarray(self.graphs.maps.predict_on_batch([features, ids]))


DECODERS: Mapping[str, Callable[[DecoderConfig], Graphs]] = {
    "merge": merge.build,
    "init_inject": inject.init,
    "pre_inject": inject.pre,
    "par_inject": inject.par,
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
