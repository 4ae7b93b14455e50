"""The inject decoders: the LSTM itself sees the photo.

As its first state (init), as the word before the first (pre: Vinyals et al. 2015, "Show and
tell"), or beside every word (par): the names are those of Tanti, Gatt and Camilleri (2018),
"Where to put the image in an image caption generator".
"""

from typing import Any

from pipeline.backend import keras
from pipeline.captioner.decoders.layers import (
    Graphs,
    TextLayers,
    image_vector,
    inputs,
    step_inputs,
    zero_state,
)
from pipeline.captioner.decoders.lstm import LSTM
from pipeline.captioner.model_config import DecoderConfig


def init(config: DecoderConfig) -> Graphs:
    """Return the graphs of init-inject; the state is [hidden, cell], each (B, units)."""
    language, lstm = TextLayers(config), _lstm(config)
    features, ids = inputs(config)
    hidden = image_vector(features, config.units, "tanh", config)
    memory = [hidden, zero_state(hidden, config.units, "cell")]
    return _begun(config, language, lstm, features, ids, memory)


def pre(config: DecoderConfig) -> Graphs:
    """Return the graphs of pre-inject; the state is [hidden, cell], each (B, units)."""
    language, lstm = TextLayers(config), _lstm(config)
    features, ids = inputs(config)
    image = image_vector(features, config.embedding_size, "linear", config)
    blanks = [zero_state(image, config.units, name) for name in ("no_hidden", "no_cell")]
    # By the cell alone, since OpenVINO does not convert the layer's loop.
    lstm.build((None, None, config.embedding_size))
    _, memory = lstm.cell(image, blanks)
    return _begun(config, language, lstm, features, ids, memory)


def par(config: DecoderConfig) -> Graphs:
    """Return the graphs of par-inject; the state is [image, hidden, cell]."""
    layers, size, units = keras.layers, config.embedding_size, config.units
    language, lstm = TextLayers(config), _lstm(config)
    features, ids = inputs(config)
    image = image_vector(features, size, "relu", config)
    words = language.read(ids)
    beside = layers.Lambda(_at_every_word, (None, size), name="image_everywhere")([image, words])
    hidden, *_ = lstm(layers.Concatenate(name="inject")([words, beside]))
    network = keras.Model([features, ids], language.logits_of(hidden), name="par_inject")

    memory = [zero_state(image, units, name) for name in ("hidden", "cell")]
    start = keras.Model(features, [image, *memory], name="par_inject_start")

    word, state = step_inputs(image=size, hidden=units, cell=units)
    both = layers.Concatenate(name="inject_step")([language.embed_token(word), state[0]])
    output, carried = lstm.cell(both, state[1:])
    found = [language.logits_of(output), state[0], *carried]
    return Graphs(network, start, keras.Model([word, *state], found, name="par_inject_step"))


def _lstm(config: DecoderConfig) -> Any:
    return LSTM(config.units, return_state=True, name="lstm")


def _begun(
    config: DecoderConfig,
    language: TextLayers,
    lstm: Any,
    features: Any,
    ids: Any,
    memory: list[Any],
) -> Graphs:
    """Return the graphs of an LSTM that has seen the photo before the first word."""
    name = config.name
    hidden, *_ = lstm(language.read(ids), initial_state=memory)
    network = keras.Model([features, ids], language.logits_of(hidden), name=name)
    start = keras.Model(features, memory, name=f"{name}_start")
    word, state = step_inputs(hidden=config.units, cell=config.units)
    output, carried = lstm.cell(language.embed_token(word), state)
    found = [language.logits_of(output), *carried]
    return Graphs(network, start, keras.Model([word, *state], found, name=f"{name}_step"))


def _at_every_word(image_and_words: list[Any]) -> Any:
    image, words = image_and_words
    return keras.ops.repeat(image[:, None, :], keras.ops.shape(words)[1], axis=1)
