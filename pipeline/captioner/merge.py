"""The merge decoder: image and language meet after the LSTM, which never sees the photo.

Tanti, Gatt and Camilleri (2018), "Where to put the image in an image caption generator";
sizes and activations as in the notebook that this project starts from. The notebook has no
dropout before the logits; an `output_dropout` of 0 is its decoder.
"""

from typing import Any

from pipeline.backend import keras


def build(
    *,
    vocabulary_size: int,
    feature_shape: tuple[int, ...],
    embedding_size: int,
    units: int,
    dropout: float,
    output_dropout: float,
) -> tuple[Any, Any, Any]:
    """Return the decoder's graphs: network, start and step (see `Decoder`).

    The state is [image (B, units), hidden (B, units), cell (B, units)].
    """
    layers = keras.layers
    embedding = layers.Embedding(vocabulary_size, embedding_size, name="embedding")
    lstm = layers.LSTM(units, return_sequences=True, name="lstm")
    joined = layers.Dense(units, activation="relu", name="joined")
    logits = layers.Dense(vocabulary_size, name="logits")

    features = keras.Input(feature_shape, name="features")
    pooled = features
    if len(feature_shape) > 1:  # a grid: this decoder takes the mean of its places
        pooled = layers.GlobalAveragePooling1D(name="mean_place")(features)
    kept = layers.Dropout(dropout, name="image_dropout")(pooled)
    image = layers.Dense(units, activation="relu", name="image")(kept)

    ids = keras.Input((None,), dtype="int32", name="ids")
    # Padding stands after the last word, where neither the LSTM's past nor the masked loss
    # can feel it: no mask is needed, and without one the LSTM takes its fast path on a GPU.
    language = lstm(layers.Dropout(dropout, name="word_dropout")(embedding(ids)))
    everywhere = layers.Reshape((1, units), name="image_everywhere")(image)
    merged = layers.Add(name="merge")([language, everywhere])
    told = layers.Dropout(output_dropout, name="output_dropout")(joined(merged))
    network = keras.Model([features, ids], logits(told), name="merge")

    blank = layers.Lambda(keras.ops.zeros_like, name="blank")(image)
    start = keras.Model(features, [image, blank, blank], name="merge_start")

    word = keras.Input((), dtype="int32", name="word")
    state = [keras.Input((units,), name=name) for name in ("image_in", "hidden_in", "cell_in")]
    hidden, carried = lstm.cell(embedding(word), [state[1], state[2]])
    step_logits = logits(joined(layers.Add(name="merge_step")([hidden, state[0]])))
    step = keras.Model([word, *state], [step_logits, state[0], *carried], name="merge_step")
    return network, start, step
