"""The inject decoders: the LSTM itself sees the photo.

As its first state (init), as the word before the first (pre: Vinyals et al. 2015, "Show and
tell"), or beside every word (par): the names are those of Tanti, Gatt and Camilleri (2018),
"Where to put the image in an image caption generator".
"""

from typing import Any

from pipeline.backend import keras
from pipeline.captioner.description import DecoderConfig
from pipeline.captioner.layers import Graphs, blank, image_vector, inputs, step_inputs


class _Language:
    """The layers that the three have in common, and how the next word follows from them."""

    def __init__(self, config: DecoderConfig) -> None:
        layers = keras.layers
        size = config.vocabulary_size
        self.embedding = layers.Embedding(size, config.embedding_size, name="embedding")
        self.lstm = layers.LSTM(config.units, return_sequences=True, return_state=True, name="lstm")
        self._word_dropout = layers.Dropout(config.dropout, name="word_dropout")
        self._output_dropout = layers.Dropout(config.output_dropout, name="output_dropout")
        self._logits = layers.Dense(size, name="logits")

    def read(self, ids: Any) -> Any:
        """Return the words' vectors (B, T, embedding)."""
        return self._word_dropout(self.embedding(ids))

    def next_word(self, hidden: Any) -> Any:
        """Return the logits of what follows."""
        return self._logits(self._output_dropout(hidden))


def init(config: DecoderConfig) -> Graphs:
    """Return the graphs of init-inject; the state is [hidden, cell], each (B, units)."""
    language = _Language(config)
    features, ids = inputs(config)
    hidden = image_vector(features, config.units, "tanh", config.dropout)
    memory = [hidden, blank(hidden, config.units, "cell")]
    return _begun(config, language, features, ids, memory)


def pre(config: DecoderConfig) -> Graphs:
    """Return the graphs of pre-inject; the state is [hidden, cell], each (B, units)."""
    language = _Language(config)
    features, ids = inputs(config)
    image = image_vector(features, config.embedding_size, "linear", config.dropout)
    first = keras.layers.Reshape((1, config.embedding_size), name="word_before")(image)
    _, *memory = language.lstm(first)
    return _begun(config, language, features, ids, memory)


def par(config: DecoderConfig) -> Graphs:
    """Return the graphs of par-inject; the state is [image, hidden, cell]."""
    layers, size, units = keras.layers, config.embedding_size, config.units
    language = _Language(config)
    features, ids = inputs(config)
    image = image_vector(features, size, "relu", config.dropout)
    words = language.read(ids)
    beside = layers.Lambda(_at_every_word, (None, size), name="image_everywhere")([image, words])
    hidden, *_ = language.lstm(layers.Concatenate(name="inject")([words, beside]))
    network = keras.Model([features, ids], language.next_word(hidden), name="par_inject")

    memory = [blank(image, units, name) for name in ("hidden", "cell")]
    start = keras.Model(features, [image, *memory], name="par_inject_start")

    word, state = step_inputs(image=size, hidden=units, cell=units)
    both = layers.Concatenate(name="inject_step")([language.embedding(word), state[0]])
    output, carried = language.lstm.cell(both, state[1:])
    found = [language.next_word(output), state[0], *carried]
    return Graphs(network, start, keras.Model([word, *state], found, name="par_inject_step"))


def _begun(
    config: DecoderConfig, language: _Language, features: Any, ids: Any, memory: list[Any]
) -> Graphs:
    """Return the graphs of an LSTM that has seen the photo before the first word."""
    name = config.name
    hidden, *_ = language.lstm(language.read(ids), initial_state=memory)
    network = keras.Model([features, ids], language.next_word(hidden), name=name)
    start = keras.Model(features, memory, name=f"{name}_start")
    word, state = step_inputs(hidden=config.units, cell=config.units)
    output, carried = language.lstm.cell(language.embedding(word), state)
    found = [language.next_word(output), *carried]
    return Graphs(network, start, keras.Model([word, *state], found, name=f"{name}_step"))


def _at_every_word(image_and_words: list[Any]) -> Any:
    image, words = image_and_words
    return keras.ops.repeat(image[:, None, :], keras.ops.shape(words)[1], axis=1)
