"""The attention decoder: before each word it looks at some places of the photo more than others.

Soft attention (Xu et al. 2015, "Show, attend and tell") over the places of a grid, asked for
by the LSTM's present output (the spatial attention of Lu et al. 2017, "Knowing when to look"),
not by its last one: the LSTM does not wait for what is seen, so that whole sequences are
learned at once. Places are compared by scaled products.
"""

import math
from typing import Any

from pipeline.backend import keras
from pipeline.captioner.decoders.layers import (
    Graphs,
    TextLayers,
    inputs,
    normalize_features,
    step_inputs,
    zero_state,
)
from pipeline.captioner.decoders.lstm import LSTM
from pipeline.captioner.model_config import DecoderConfig
from pipeline.errors import InputError


def build(config: DecoderConfig) -> Graphs:
    """Return the graphs.

    The state is [places (B, P, units), keys (B, P, units), image (B, units), hidden, cell].

    Raises:
        InputError: the features have no places to look at.
    """
    *grid_shape, _ = config.feature_shape
    if not grid_shape:
        raise InputError(
            "the attention decoder looks at places of a photo: set extract.pooling in params.yaml "
            "to quarters or grid"
        )
    layers, units = keras.layers, config.units
    language = TextLayers(config)
    lstm = LSTM(units, name="lstm")
    look = _Look(units)

    features, ids = inputs(config)
    places = layers.Dense(units, activation="relu", name="place")(
        normalize_features(features, config)
    )
    keys = layers.Dense(units, use_bias=False, name="key")(places)
    whole = layers.GlobalAveragePooling1D(name="mean_place")(places)
    image = layers.Dense(units, activation="relu", name="image")(whole)
    hidden = lstm(language.read(ids))
    everywhere = layers.Reshape((1, units), name="image_everywhere")(image)
    told, maps = look(hidden, places, keys, everywhere)
    network = keras.Model([features, ids], language.logits_of(told), name="attention")

    memory = [zero_state(image, units, name) for name in ("hidden", "cell")]
    start = keras.Model(features, [places, keys, image, *memory], name="attention_start")

    grid = (*grid_shape, units)
    word, state = step_inputs(places=grid, keys=grid, image=units, hidden=units, cell=units)
    output, carried = lstm.cell(language.embed_token(word), state[3:])
    one = layers.Reshape((1, units), name="one_word")
    told, _ = look(one(output), state[0], state[1], one(state[2]))
    found = language.logits_of(layers.Reshape((units,), name="one_answer")(told))
    step = keras.Model([word, *state], [found, *state[:3], *carried], name="attention_step")
    return Graphs(network, start, step, keras.Model([features, ids], maps, name="attention_maps"))


class _Look:
    """Looks at places; called for whole sequences and for single words."""

    def __init__(self, units: int) -> None:
        layers = keras.layers
        self._query = layers.Dense(units, use_bias=False, name="query")
        self._scale = layers.Rescaling(1 / math.sqrt(units), name="scale")
        self._match = layers.Dot(axes=2, name="match")
        self._weigh = layers.Softmax(name="weigh")
        self._see = layers.Dot(axes=(2, 1), name="see")
        self._add = layers.Add(name="merge")
        self._joined = layers.Dense(units, activation="relu", name="joined")

    def __call__(self, hidden: Any, places: Any, keys: Any, image: Any) -> tuple[Any, Any]:
        """Return what the next words are told from, (B, T, units), and the maps, (B, T, P)."""
        maps = self._weigh(self._scale(self._match([self._query(hidden), keys])))
        seen = self._see([maps, places])
        return self._joined(self._add([hidden, seen, image])), maps
