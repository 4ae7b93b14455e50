"""The original notebook's way, for comparison: one photo and one word per `predict`.

`python -m benchmarks.notebook ARTIFACTS PHOTO` captions one photo this way.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.features.feature_spec import FeatureSpec

_MAX_WORDS = 32


def build_notebook_encoder(artifacts: Path, feature_spec: FeatureSpec) -> Any:
    """Build the network with its pooling, and load its weights."""
    from pipeline.features.encoders.networks import build_encoder  # noqa: PLC0415  (imports Keras)

    encoder = build_encoder(
        feature_spec.encoder, feature_spec.input_size, feature_spec.pooling, feature_spec.scales
    )
    encoder.load_weights(artifacts / "encoder.weights.h5")
    return encoder


def encode_photo(encoder: Any, photo: Path) -> Any:
    """Return the features of one photo, (1, ...), with Xception's preprocessing."""
    _, height, width, _ = encoder.input_shape
    with Image.open(photo) as image:
        pixels = np.asarray(image.convert("RGB").resize((width, height)), np.float32)
    return encoder.predict(pixels[None] / 127.5 - 1, verbose=0)


def caption_greedily(artifacts: Path, photo: Path) -> str:
    """Caption one photo greedily; the network reads the whole prefix again for every word."""
    from pipeline.captioner.model_folder import Model  # noqa: PLC0415  (imports Keras)
    from pipeline.text.vocabulary import END, START, Vocabulary  # noqa: PLC0415

    vocabulary = Vocabulary.load(artifacts / "vocabulary.json")
    model = Model.load(artifacts / "model", vocabulary)
    network = model.decoders[0].network
    encoder = build_notebook_encoder(artifacts, model.config.feature_spec)
    features = encode_photo(encoder, photo)
    ids = [START]
    while len(ids) <= _MAX_WORDS and ids[-1] != END:
        logits = network.predict([features, np.array([ids], np.int32)], verbose=0)
        ids.append(int(logits[0, -1].argmax()))
    return vocabulary.decode([i for i in ids if i not in (START, END)])


if __name__ == "__main__":
    print(caption_greedily(Path(sys.argv[1]), Path(sys.argv[2])))
