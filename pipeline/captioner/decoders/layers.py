"""What decoders are made of: their graphs, and the layers that several of them have."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from pipeline.backend import keras
from pipeline.captioner.model_config import DecoderConfig


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


class TextLayers:
    """The side of language that all decoders have: words' vectors, and what the next word is."""

    def __init__(self, config: DecoderConfig) -> None:
        """Make the layers, without weights yet."""
        layers, size = keras.layers, config.vocabulary_size
        self._tied = config.tied_embeddings
        kind = layers.ReversibleEmbedding if self._tied else layers.Embedding
        self._embedding = kind(size, config.embedding_size, name="embedding")
        self._dropout = layers.Dropout(config.dropout, name="word_dropout")
        self._output_dropout = layers.Dropout(config.output_dropout, name="output_dropout")
        if self._tied:
            self._narrow = layers.Dense(config.embedding_size, name="narrow")
            self._bias = _Bias(name="logits")
        else:
            self._logits = layers.Dense(size, name="logits")

    def read(self, ids: Any) -> Any:
        """Return the vectors of whole sequences, (B, T, embedding), some numbers dropped."""
        return self._dropout(self._embedding(ids))

    def embed_token(self, word: Any) -> Any:
        """Return the vectors of single words, (B, embedding)."""
        return self._embedding(word)

    def logits_of(self, told: Any) -> Any:
        """Return the logits of what follows, (..., V), from vectors (..., N)."""
        kept = self._output_dropout(told)
        if self._tied:  # Press and Wolf 2017, "Using the output embedding"
            return self._bias(self._embedding(self._narrow(kept), reverse=True))
        return self._logits(kept)


class _Bias(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Adds a number to each logit: all that tied embeddings leave of a layer of logits."""

    def build(self, shape: Any) -> None:
        self.bias = self.add_weight(shape=(shape[-1],), initializer="zeros", name="bias")

    def call(self, logits: Any) -> Any:
        return logits + self.bias


class _Center(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Takes off vectors what they have in common: `initial.set_feature_mean` tells it."""

    def build(self, shape: Any) -> None:
        self.mean = self.add_weight(
            shape=(shape[-1],), initializer="zeros", trainable=False, name="mean"
        )

    def call(self, vectors: Any) -> Any:
        return vectors - self.mean


def normalize_features(features: Any, config: DecoderConfig) -> Any:
    """Return features as a decoder gets them: normalized if asked, some of them dropped."""
    layers = keras.layers
    if config.feature_norm == "center":
        features = _Center(name="feature_norm")(features)
    if config.feature_norm == "l2":
        unit = layers.UnitNormalization(name="unit_length")(features)
        # Numbers of about 1, as the initial weights of the next layer expect.
        features = layers.Rescaling(math.sqrt(features.shape[-1]), name="feature_norm")(unit)
    if config.feature_noise:
        features = layers.GaussianNoise(config.feature_noise, name="feature_noise")(features)
    return layers.Dropout(config.dropout, name="image_dropout")(features)


def image_vector(features: Any, size: int, activation: str, config: DecoderConfig) -> Any:
    """Return what a decoder learns to see in a photo as a whole, (B, size).

    Of places (B, P, D) it sees their mean and, in a few numbers each, how they differ from it:
    enough to tell where things stand, too little to learn photos by heart.
    """
    layers = keras.layers
    if not features.shape[1:-1]:
        return layers.Dense(size, activation=activation, name="image")(
            normalize_features(features, config)
        )
    mean = layers.GlobalAveragePooling1D(name="mean_place")(features)
    seen = normalize_features(mean, config)
    if config.spatial_residual_size:
        one = layers.Reshape((1, features.shape[-1]), name="mean_of_each")(mean)
        apart = layers.Subtract(name="apart")([features, one])
        kept = layers.SpatialDropout1D(config.dropout, name="layout_dropout")(apart)
        told = layers.Dense(config.spatial_residual_size, use_bias=False, name="layout")(kept)
        seen = layers.Concatenate(name="seen")([seen, layers.Flatten(name="laid_out")(told)])
    return layers.Dense(size, activation=activation, name="image")(seen)


def zero_state(like: Any, size: int, name: str) -> Any:
    """Return an empty memory, (B, size), for the photos of `like`."""

    def zeros(array: Any) -> Any:
        return keras.ops.zeros((keras.ops.shape(array)[0], size), array.dtype)

    return keras.layers.Lambda(zeros, (size,), name=name)(like)
