"""The inject decoders: the LSTM itself sees the photo.

The image is the LSTM's initial state (init), the word before the first one (pre: Vinyals et al.
2015, "Show and tell"), or concatenated to every word (par). The names are those of Tanti, Gatt
and Camilleri (2018), "Where to put the image in an image caption generator".
"""

from typing import Any

from pipeline.backend import keras
from pipeline.captioner.decoders.layers import (
    DecoderGraphs,
    TextLayers,
    image_vector,
    sequence_inputs,
    step_inputs,
    zero_state,
)
from pipeline.captioner.decoders.lstm import LSTM
from pipeline.captioner.model_config import DecoderConfig


def build_init_inject(config: DecoderConfig) -> DecoderGraphs:
    """Build the graphs of init-inject, which has no context."""
    text, lstm = TextLayers(config), _make_lstm(config)
    features, ids = sequence_inputs(config)
    hidden = image_vector(features, config.units, "tanh", config)
    initial_state = [hidden, zero_state(hidden, config.units, "cell")]
    return _build_from_initial_state(config, text, lstm, features, ids, initial_state)


def build_pre_inject(config: DecoderConfig) -> DecoderGraphs:
    """Build the graphs of pre-inject, which has no context."""
    text, lstm = TextLayers(config), _make_lstm(config)
    features, ids = sequence_inputs(config)
    image = image_vector(features, config.embedding_size, "linear", config)
    zeros = [zero_state(image, config.units, name) for name in ("zero_hidden", "zero_cell")]
    # The cell alone reads the image, since OpenVINO does not convert the layer's loop.
    lstm.build((None, None, config.embedding_size))
    _, initial_state = lstm.cell(image, zeros)
    return _build_from_initial_state(config, text, lstm, features, ids, initial_state)


def build_par_inject(config: DecoderConfig) -> DecoderGraphs:
    """Build the graphs of par-inject; the context is [image], (P, embedding_size)."""
    layers, size, units = keras.layers, config.embedding_size, config.units
    text, lstm = TextLayers(config), _make_lstm(config)
    features, ids = sequence_inputs(config)
    image = image_vector(features, size, "relu", config)
    embeddings = text.embed_sequence(ids)
    image_per_word = layers.Lambda(_repeat_per_word, (None, size), name="image_per_word")(
        [image, embeddings]
    )
    hidden, *_ = lstm(layers.Concatenate(name="inject")([embeddings, image_per_word]))
    network, output = text.network([features, ids], hidden, "par_inject")

    lstm_state = [zero_state(image, units, name) for name in ("hidden", "cell")]
    start = keras.Model(features, [image, *lstm_state], name="par_inject_start")

    word, state = step_inputs(image=size, hidden=units, cell=units)
    image_in, *lstm_state_in = state
    lstm_input = layers.Concatenate(name="inject_step")([text.embed_token(word), image_in])
    hidden, lstm_state_out = lstm.cell(lstm_input, lstm_state_in)
    step = keras.Model([word, *state], [hidden, *lstm_state_out], name="par_inject_step")
    return DecoderGraphs(network, start, step, text.logits_graph(units), output)


def _make_lstm(config: DecoderConfig) -> Any:
    return LSTM(config.units, return_state=True, name="lstm")


def _build_from_initial_state(
    config: DecoderConfig,
    text: TextLayers,
    lstm: Any,
    features: Any,
    ids: Any,
    initial_state: list[Any],
) -> DecoderGraphs:
    """Build the graphs of an LSTM that sees the photo only in its initial [hidden, cell]."""
    name = config.name
    hidden, *_ = lstm(text.embed_sequence(ids), initial_state=initial_state)
    network, output = text.network([features, ids], hidden, name)
    start = keras.Model(features, initial_state, name=f"{name}_start")
    word, state = step_inputs(hidden=config.units, cell=config.units)
    hidden, state_out = lstm.cell(text.embed_token(word), state)
    step = keras.Model([word, *state], [hidden, *state_out], name=f"{name}_step")
    return DecoderGraphs(network, start, step, text.logits_graph(config.units), output)


def _repeat_per_word(image_and_words: list[Any]) -> Any:
    """Repeat the image (B, N) for each word of (B, T, ...): (B, T, N)."""
    image, words = image_and_words
    return keras.ops.repeat(image[:, None, :], keras.ops.shape(words)[1], axis=1)
