"""Decoders: graphs with shared weights, for training on whole sequences and for stepwise search."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.backend import JIT_COMPILE, keras
from pipeline.captioner.decoders import attention, inject, merge
from pipeline.captioner.decoders.layers import DecoderGraphs
from pipeline.captioner.decoders.state import (
    Array,
    DecoderState,
    Positions,
    SteppedDecoder,
    next_power_of_two,
)
from pipeline.captioner.model_config import DecoderConfig
from pipeline.errors import InputError


@dataclass(frozen=True)
class Decoder(SteppedDecoder):
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

    def begin(self, features: npt.NDArray[np.float32]) -> DecoderState:
        """Run `graphs.start`."""
        *context, hidden, cell = _run(self.graphs.start, [features])
        return DecoderState(context, hidden, cell)

    def begin_unconditional(self, features: npt.NDArray[np.float32]) -> DecoderState:
        """Run `graphs.start` on null features; see `interfaces.SupportsUnconditional`."""
        return self.begin(np.broadcast_to(self.null_features, features.shape).astype(np.float32))

    def unconditional_start(self) -> Any:
        """Return `begin_unconditional` as a `keras.Model`, which can be converted."""
        features = keras.Input(self.config.feature_shape, name="features")
        null_features = keras.layers.Rescaling(
            0.0, offset=self.null_features, name="null_features"
        )(features)
        return keras.Model(features, self.graphs.start(null_features), name="unconditional_start")

    def step(
        self,
        ids: npt.NDArray[np.int32],
        photos: Positions,
        parents: Positions,
        state: DecoderState,
    ) -> tuple[Array, DecoderState]:
        """Run `graphs.step`; see `interfaces.SupportsUnconditional`."""
        run = partial(_run, self.graphs.step)
        return state.step(run, ids[:, -1], photos, parents, few_shapes=JIT_COMPILE)

    def logits(self, vectors: Array) -> Array:
        """Run `graphs.logits`."""
        return np.require(_run(self.graphs.logits, [vectors])[0], requirements="W")

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


def _run(graph: Any, inputs: Sequence[Array]) -> list[Array]:
    """Run a graph on arrays and return its outputs as NumPy arrays."""
    count = len(inputs[0])
    if JIT_COMPILE:  # every shape takes a compilation
        inputs = [_pad_rows(array) for array in inputs]
    outputs = graph.predict_on_batch(inputs[0] if len(inputs) == 1 else list(inputs))
    outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
    return [np.asarray(array)[:count] for array in outputs]


def _pad_rows(array: Array) -> Array:
    """Pad an array with rows of 0 to a power of two."""
    size = next_power_of_two(len(array))
    return np.pad(array, [(0, size - len(array)), *[(0, 0)] * (array.ndim - 1)])
