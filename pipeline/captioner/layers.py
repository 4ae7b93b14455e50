"""What decoders are made of: their graphs, and the layers that several of them have."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from pipeline.backend import keras
from pipeline.captioner.description import DecoderConfig


class Graphs(NamedTuple):
    """A decoder's graphs, each a `keras.Model`; they share their layers.

    Attributes:
        network: [features (B, D) or (B, P, D), ids (B, T)] to logits (B, T, V): at each
            position the next word, given the words up to there (teacher forcing).
        start: features to the state before the first word, a list of arrays (B, ...).
        step: [ids (B,), *state] to [logits (B, V), *state].
        maps: as the network, to (B, T, P): how much each place of the photo counts for the
            next word, 1 in all; None where a decoder does not look at places.
    """

    network: Any
    start: Any
    step: Any
    maps: Any = None


def inputs(config: DecoderConfig) -> tuple[Any, Any]:
    """Return the network's inputs: features, and ids (B, T)."""
    features = keras.Input(config.feature_shape, name="features")
    return features, keras.Input((None,), dtype="int32", name="ids")


def step_inputs(**sizes: int | Sequence[int]) -> tuple[Any, list[Any]]:
    """Return a step's inputs: a word (B,), and the state's arrays by their names and sizes."""
    state = [
        keras.Input((size,) if isinstance(size, int) else tuple(size), name=f"{name}_in")
        for name, size in sizes.items()
    ]
    return keras.Input((), dtype="int32", name="word"), state


def image_vector(features: Any, size: int, activation: str, dropout: float) -> Any:
    """Return what a decoder learns to see in a photo as a whole, (B, size)."""
    if features.shape[1:-1]:  # a grid: the mean of its places
        features = keras.layers.GlobalAveragePooling1D(name="mean_place")(features)
    kept = keras.layers.Dropout(dropout, name="image_dropout")(features)
    return keras.layers.Dense(size, activation=activation, name="image")(kept)


def blank(like: Any, size: int, name: str) -> Any:
    """Return an empty memory, (B, size), for the photos of `like`."""

    def zeros(array: Any) -> Any:
        return keras.ops.zeros((keras.ops.shape(array)[0], size), array.dtype)

    return keras.layers.Lambda(zeros, (size,), name=name)(like)
