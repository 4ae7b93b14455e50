"""What all decoders share: the set of graphs that they consist of, and common layers."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pipeline.backend import keras
from pipeline.captioner.model_config import DecoderConfig


class Output(NamedTuple):
    """The end of a network, in parts: its logits are `vectors @ kernel + bias`.

    The loss computes them itself, together with its gradients.

    Attributes:
        vectors: the network before its last layer, a `keras.Model`; returns (B, T, N).
        weights: returns kernel (N, V) and bias (V,).
    """

    vectors: Any
    weights: Callable[[], tuple[Any, Any]]


class DecoderGraphs(NamedTuple):
    """The graphs of a decoder, each a `keras.Model`; they share their layers.

    Attributes:
        network: maps [features (B, D) or (B, P, D), ids (B, T)] to logits (B, T, V). The logits
            at each position predict the next word, given the words so far (teacher forcing).
        start: maps features (P, ...) to the state before the first word, [*context, hidden, cell]:
            context arrays (P, ...), which no word changes, and an LSTM's state (P, units).
        step: maps [ids (B,), *context, hidden (B, units), cell (B, units)] to [vectors (B, N),
            hidden, cell]. If the context has an array (P, positions, N), B is a multiple of P and
            the rows of a photo are consecutive; otherwise B is P.
        logits: maps the vectors (B, N) to the logits of the next word (B, V), an affine map:
            guidance mixes vectors where it means logits.
        output: the network's end in parts.
        maps: maps the network's inputs to attention maps (B, T, P): the weight of each position
            in the photo for the next word; they sum to 1. None for a decoder without attention.
    """

    network: Any
    start: Any
    step: Any
    logits: Any
    output: Output
    maps: Any = None


def sequence_inputs(config: DecoderConfig) -> tuple[Any, Any]:
    """Return the inputs of the network: features (B, D) or (B, P, D), and ids (B, T)."""
    features = keras.Input(config.feature_shape, name="features")
    return features, keras.Input((None,), dtype="int32", name="ids")


def step_inputs(**sizes: int | Sequence[int]) -> tuple[Any, list[Any]]:
    """Return the inputs of a step: ids (B,), and one input per state array, by name and size."""
    state = [
        keras.Input((size,) if isinstance(size, int) else tuple(size), name=f"{name}_in")
        for name, size in sizes.items()
    ]
    return keras.Input((), dtype="int32", name="word"), state


class TextLayers:
    """The language side of every decoder: the word embedding, and the logits of the next word."""

    def __init__(self, config: DecoderConfig) -> None:
        """Create the layers; they get their weights when they are first called."""
        layers, vocabulary_size = keras.layers, config.vocabulary_size
        self._tied_embeddings = config.tied_embeddings
        embedding_class = layers.ReversibleEmbedding if self._tied_embeddings else layers.Embedding
        self._embedding = embedding_class(vocabulary_size, config.embedding_size, name="embedding")
        self._dropout = layers.Dropout(config.dropout, name="word_dropout")
        self._output_dropout = layers.Dropout(config.output_dropout, name="output_dropout")
        if self._tied_embeddings:
            self._output_projection = layers.Dense(config.embedding_size, name="output_projection")
            self._output_bias = _AddBias(name="logits")
        else:
            self._output = layers.Dense(vocabulary_size, name="logits")

    def embed_sequence(self, ids: Any) -> Any:
        """Return the embeddings of sequences (B, T), with dropout: (B, T, embedding_size)."""
        return self._dropout(self._embedding(ids))

    def embed_token(self, ids: Any) -> Any:
        """Return the embeddings of single words (B,), for a search: (B, embedding_size)."""
        return self._embedding(ids)

    def logits_graph(self, size: int) -> Any:
        """Return `DecoderGraphs.logits` for vectors (B, size)."""
        vectors = keras.Input((size,), name="vectors")
        return keras.Model(vectors, self.logits(vectors), name="logits_graph")

    def logits(self, hidden: Any) -> Any:
        """Return the logits of the next word, (..., V), from hidden vectors (..., units)."""
        return self._project(self._vectors(hidden))

    def network(self, inputs: list[Any], hidden: Any, name: str) -> tuple[Any, Output]:
        """Return the graph from inputs to logits, and its end in parts.

        Args:
            inputs: the network's inputs.
            hidden: hidden vectors (B, T, units).
            name: the network's name.
        """
        vectors = self._vectors(hidden)
        network = keras.Model(inputs, self._project(vectors), name=name)
        return network, Output(keras.Model(inputs, vectors, name=name), self._weights)

    def _vectors(self, hidden: Any) -> Any:
        """Return the vectors that are projected to logits, (..., N)."""
        hidden = self._output_dropout(hidden)
        return self._output_projection(hidden) if self._tied_embeddings else hidden

    def _project(self, vectors: Any) -> Any:
        if self._tied_embeddings:  # Press and Wolf 2017, "Using the output embedding"
            return self._output_bias(self._embedding(vectors, reverse=True))
        return self._output(vectors)

    def _weights(self) -> tuple[Any, Any]:
        if self._tied_embeddings:
            return keras.ops.transpose(self._embedding.embeddings), self._output_bias.bias
        return self._output.kernel, self._output.bias


class _AddBias(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Adds a bias to the logits: tied embeddings leave no other weights in the output layer."""

    def build(self, shape: Any) -> None:
        self.bias = self.add_weight(shape=(shape[-1],), initializer="zeros", name="bias")

    def call(self, logits: Any) -> Any:
        return logits + self.bias


class _SubtractMean(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Subtracts the mean training vector, which `initialization.set_feature_mean` sets."""

    def build(self, shape: Any) -> None:
        self.mean = self.add_weight(
            shape=(shape[-1],), initializer="zeros", trainable=False, name="mean"
        )

    def call(self, vectors: Any) -> Any:
        return vectors - self.mean


def preprocess_features(features: Any, config: DecoderConfig) -> Any:
    """Normalize features (..., D) as configured; in training, add noise and apply dropout.

    Decoders read features only through this function: classifier-free guidance relies on
    normalized features of 0 to represent a photo without information.
    """
    layers = keras.layers
    if config.feature_norm == "center":
        features = _SubtractMean(name="feature_norm")(features)
    if config.feature_norm == "l2":
        unit = layers.UnitNormalization(name="unit_length")(features)
        # The initial weights of the next layer expect values of about 1.
        features = layers.Rescaling(math.sqrt(features.shape[-1]), name="feature_norm")(unit)
    if config.feature_noise:
        features = layers.GaussianNoise(config.feature_noise, name="feature_noise")(features)
    return layers.Dropout(config.dropout, name="image_dropout")(features)


def image_vector(features: Any, size: int, activation: str, config: DecoderConfig) -> Any:
    """Embed the photo as one vector, (B, size).

    Features (B, P, D) are averaged over positions. With `spatial_residual_size`, a few numbers
    per position are concatenated to the mean: a projection of its spatial residual, the difference
    from the mean. They are enough to learn where objects are, and too few to memorize photos.
    """
    layers = keras.layers
    if not features.shape[1:-1]:
        return layers.Dense(size, activation=activation, name="image")(
            preprocess_features(features, config)
        )
    mean = layers.GlobalAveragePooling1D(name="mean_place")(features)
    image = preprocess_features(mean, config)
    if config.spatial_residual_size:
        mean_position = layers.Reshape((1, features.shape[-1]), name="mean_place_broadcast")(mean)
        residual = layers.Subtract(name="spatial_residual")([features, mean_position])
        residual = layers.SpatialDropout1D(config.dropout, name="spatial_residual_dropout")(
            residual
        )
        residual = layers.Dense(
            config.spatial_residual_size, use_bias=False, name="spatial_residual_projection"
        )(residual)
        residual = layers.Flatten(name="spatial_residual_flat")(residual)
        image = layers.Concatenate(name="image_features")([image, residual])
    return layers.Dense(size, activation=activation, name="image")(image)


def zero_state(like: Any, size: int, name: str) -> Any:
    """Return zeros, (B, size), as an initial LSTM state for the batch of `like` (B, ...)."""

    def zeros(batch: Any) -> Any:
        return keras.ops.zeros((keras.ops.shape(batch)[0], size), batch.dtype)

    return keras.layers.Lambda(zeros, (size,), name=name)(like)
