"""The merge decoder: image and language meet after the LSTM, which never sees the photo.

Tanti, Gatt and Camilleri (2018), "Where to put the image in an image caption generator";
sizes and activations as in the notebook that this project starts from. The notebook has no
dropout before the logits; an `output_dropout` of 0 is its decoder.
"""

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


def build(config: DecoderConfig) -> Graphs:
    """Return the graphs; the state is [image, hidden, cell], each (B, units)."""
    layers, units = keras.layers, config.units
    language = TextLayers(config)
    lstm = LSTM(units, name="lstm")
    joined = layers.Dense(units, activation="relu", name="joined")

    features, ids = inputs(config)
    image = image_vector(features, units, "relu", config)
    # Padding stands after the last word, where neither the LSTM's past nor the masked loss
    # can feel it: no mask is needed, and without one the LSTM takes its fast paths.
    words = language.read(ids)
    everywhere = layers.Reshape((1, units), name="image_everywhere")(image)
    merged = joined(layers.Add(name="merge")([lstm(words), everywhere]))
    network = keras.Model([features, ids], language.logits_of(merged), name="merge")

    memory = [zero_state(image, units, name) for name in ("hidden", "cell")]
    start = keras.Model(features, [image, *memory], name="merge_start")

    word, state = step_inputs(image=units, hidden=units, cell=units)
    hidden, carried = lstm.cell(language.embed_token(word), state[1:])
    logits_of = language.logits_of(joined(layers.Add(name="merge_step")([hidden, state[0]])))
    step = keras.Model([word, *state], [logits_of, state[0], *carried], name="merge_step")
    return Graphs(network, start, step)
