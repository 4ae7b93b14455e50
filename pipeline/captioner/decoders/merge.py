"""The merge decoder: image and language meet after the LSTM, which never sees the photo.

Tanti, Gatt and Camilleri (2018), "Where to put the image in an image caption generator". Sizes
and activations are those of the notebook that this project starts from. The notebook has no
dropout before the logits: with an `output_dropout` of 0 this is its decoder.
"""

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


def build(config: DecoderConfig) -> DecoderGraphs:
    """Build the graphs; the context is [image], (P, units)."""
    layers, units = keras.layers, config.units
    text = TextLayers(config)
    lstm = LSTM(units, name="lstm")
    fusion = layers.Dense(units, activation="relu", name="fusion")

    features, ids = sequence_inputs(config)
    image = image_vector(features, units, "relu", config)
    # No mask: padding comes after the last word, where it affects neither the LSTM's earlier
    # outputs nor the masked loss, and without a mask the LSTM takes its fast paths.
    embeddings = text.embed_sequence(ids)
    image_broadcast = layers.Reshape((1, units), name="image_broadcast")(image)
    fused = fusion(layers.Add(name="merge")([lstm(embeddings), image_broadcast]))
    network, output = text.network([features, ids], fused, "merge")

    lstm_state = [zero_state(image, units, name) for name in ("hidden", "cell")]
    start = keras.Model(features, [image, *lstm_state], name="merge_start")

    word, state = step_inputs(image=units, hidden=units, cell=units)
    image_in, *lstm_state_in = state
    hidden, lstm_state_out = lstm.cell(text.embed_token(word), lstm_state_in)
    vectors = fusion(layers.Add(name="merge_step")([hidden, image_in]))
    step = keras.Model([word, *state], [vectors, *lstm_state_out], name="merge_step")
    return DecoderGraphs(network, start, step, text.logits_graph(units), output)
