"""The merge decoder: image and language meet after the LSTM, which never sees the photo.

Tanti, Gatt and Camilleri (2018), "Where to put the image in an image caption generator";
sizes and activations as in the notebook that this project starts from. The notebook has no
dropout before the logits; an `output_dropout` of 0 is its decoder.
"""

from pipeline.backend import keras
from pipeline.captioner.description import DecoderConfig
from pipeline.captioner.layers import Graphs, blank, image_vector, inputs, step_inputs


def build(config: DecoderConfig) -> Graphs:
    """Return the graphs; the state is [image, hidden, cell], each (B, units)."""
    layers, units = keras.layers, config.units
    embedding = layers.Embedding(config.vocabulary_size, config.embedding_size, name="embedding")
    lstm = layers.LSTM(units, return_sequences=True, name="lstm")
    joined = layers.Dense(units, activation="relu", name="joined")
    logits = layers.Dense(config.vocabulary_size, name="logits")

    features, ids = inputs(config)
    image = image_vector(features, units, "relu", config.dropout)
    # Padding stands after the last word, where neither the LSTM's past nor the masked loss
    # can feel it: no mask is needed, and without one the LSTM takes its fast path on a GPU.
    words = layers.Dropout(config.dropout, name="word_dropout")(embedding(ids))
    everywhere = layers.Reshape((1, units), name="image_everywhere")(image)
    merged = joined(layers.Add(name="merge")([lstm(words), everywhere]))
    told = layers.Dropout(config.output_dropout, name="output_dropout")(merged)
    network = keras.Model([features, ids], logits(told), name="merge")

    memory = [blank(image, units, name) for name in ("hidden", "cell")]
    start = keras.Model(features, [image, *memory], name="merge_start")

    word, state = step_inputs(image=units, hidden=units, cell=units)
    hidden, carried = lstm.cell(embedding(word), state[1:])
    next_word = logits(joined(layers.Add(name="merge_step")([hidden, state[0]])))
    step = keras.Model([word, *state], [next_word, state[0], *carried], name="merge_step")
    return Graphs(network, start, step)
