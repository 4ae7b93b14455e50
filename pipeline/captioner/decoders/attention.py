"""The attention decoder: it weights the positions of the photo for each word.

Soft attention (Xu et al. 2015, "Show, attend and tell") over the positions of a grid. The query is
the LSTM's current output (the spatial attention of Lu et al. 2017, "Knowing when to look"), not
its previous one: the LSTM does not wait for the context vector, so whole sequences are trained
at once. The scores are scaled dot products.
"""

import math
from typing import Any

from pipeline.backend import keras
from pipeline.captioner.decoders.layers import (
    DecoderGraphs,
    TextLayers,
    preprocess_features,
    sequence_inputs,
    step_inputs,
    zero_state,
)
from pipeline.captioner.decoders.lstm import LSTM
from pipeline.captioner.model_config import DecoderConfig
from pipeline.errors import InputError


def build(config: DecoderConfig) -> DecoderGraphs:
    """Build the graphs.

    The context is [values (P, positions, units), keys (P, positions, units), image (P, units)].

    Raises:
        InputError: the features have only one position, so there is nothing to attend to.
    """
    *grid_shape, _ = config.feature_shape
    if not grid_shape:
        raise InputError(
            "the attention decoder needs features of several positions of a photo: set "
            "extract.pooling in params.yaml to quarters or grid"
        )
    layers, units = keras.layers, config.units
    text = TextLayers(config)
    lstm = LSTM(units, name="lstm")
    attention = _Attention(units)

    features, ids = sequence_inputs(config)
    values = layers.Dense(units, activation="relu", name="place")(
        preprocess_features(features, config)
    )
    keys = layers.Dense(units, use_bias=False, name="key")(values)
    mean_value = layers.GlobalAveragePooling1D(name="mean_place")(values)
    image = layers.Dense(units, activation="relu", name="image")(mean_value)
    hidden = lstm(text.embed_sequence(ids))
    image_broadcast = layers.Reshape((1, units), name="image_broadcast")(image)
    attended, maps = attention(hidden, values, keys, image_broadcast)
    network, output = text.network([features, ids], attended, "attention")

    lstm_state = [zero_state(image, units, name) for name in ("hidden", "cell")]
    start = keras.Model(features, [values, keys, image, *lstm_state], name="attention_start")

    map_shape = (*grid_shape, units)
    word, state = step_inputs(
        values=map_shape, keys=map_shape, image=units, hidden=units, cell=units
    )
    values_in, keys_in, image_in, *lstm_state_in = state
    hidden, lstm_state_out = lstm.cell(text.embed_token(word), lstm_state_in)
    # The hypotheses of a photo attend to its positions as the words of a sequence do.
    queries = layers.Lambda(_group_by_photo, (None, units), name="group_by_photo")(
        [hidden, image_in]
    )
    image_per_photo = layers.Reshape((1, units), name="image_per_photo")(image_in)
    attended, _ = attention(queries, values_in, keys_in, image_per_photo)
    vectors = layers.Lambda(_ungroup, (units,), name="ungroup")(attended)
    step = keras.Model([word, *state], [vectors, *lstm_state_out], name="attention_step")

    attention_maps = keras.Model([features, ids], maps, name="attention_maps")
    return DecoderGraphs(network, start, step, text.logits_graph(units), output, attention_maps)


def _group_by_photo(rows_and_photos: list[Any]) -> Any:
    """Group rows (B, N), those of a photo consecutive, by photos (P, ...): (P, B / P, N)."""
    rows, photos = rows_and_photos
    return keras.ops.reshape(rows, (keras.ops.shape(photos)[0], -1, rows.shape[-1]))


def _ungroup(groups: Any) -> Any:
    """Return the rows of groups (P, B / P, N): (B, N)."""
    return keras.ops.reshape(groups, (-1, groups.shape[-1]))


class _Attention:
    """Attends to positions; called for whole sequences and for single words."""

    def __init__(self, units: int) -> None:
        layers = keras.layers
        self._query = layers.Dense(units, use_bias=False, name="query")
        self._scale = layers.Rescaling(1 / math.sqrt(units), name="scale")
        self._scores = layers.Dot(axes=2, name="scores")
        self._softmax = layers.Softmax(name="attention_weights")
        self._context = layers.Dot(axes=(2, 1), name="weighted_places")
        self._add = layers.Add(name="merge")
        self._fusion = layers.Dense(units, activation="relu", name="fusion")

    def __call__(self, hidden: Any, values: Any, keys: Any, image: Any) -> tuple[Any, Any]:
        """Return the vectors that predict the next words, (B, T, units), and maps (B, T, P)."""
        maps = self._softmax(self._scale(self._scores([self._query(hidden), keys])))
        context = self._context([maps, values])
        return self._fusion(self._add([hidden, context, image])), maps
