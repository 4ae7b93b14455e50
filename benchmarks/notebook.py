"""The notebook's way, to compare with: one photo per `predict`, a greedy loop of `predict`.

`python -m benchmarks.notebook ARTIFACTS PHOTO` captions one photo so, from a cold shell.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.features.feature_spec import FeatureSpec

_MAX_WORDS = 32


def load_encoder(artifacts: Path, encoding: FeatureSpec) -> Any:
    """Build the network, what pools its maps with it, and load the weights into it."""
    from pipeline.features.encoders.networks import build_encoder  # noqa: PLC0415  (imports Keras)

    encoder = build_encoder(
        encoding.encoder, encoding.input_size, encoding.pooling, encoding.scales
    )
    encoder.load_weights(artifacts / "encoder.weights.h5")
    return encoder


def encode(encoder: Any, photo: Path) -> Any:
    """Return one photo's features, (1, ...), preprocessed as Xception's are."""
    _, height, width, _ = encoder.input_shape
    with Image.open(photo) as image:
        pixels = np.asarray(image.convert("RGB").resize((width, height)), np.float32)
    return encoder.predict(pixels[None] / 127.5 - 1, verbose=0)


def caption(artifacts: Path, photo: Path) -> str:
    """Caption one photo greedily, the whole prefix through the network for every word."""
    from pipeline.captioner.model_folder import Model  # noqa: PLC0415  (imports Keras)
    from pipeline.text.vocabulary import END, START, Vocabulary  # noqa: PLC0415

    vocabulary = Vocabulary.load(artifacts / "vocabulary.json")
    model = Model.load(artifacts / "model", vocabulary)
    network = model.decoders[0].network
    features = encode(load_encoder(artifacts, model.config.encoding), photo)
    ids = [START]
    while len(ids) <= _MAX_WORDS and ids[-1] != END:
        logits = network.predict([features, np.array([ids], np.int32)], verbose=0)
        ids.append(int(logits[0, -1].argmax()))
    return vocabulary.decode([i for i in ids if i not in (START, END)])


if __name__ == "__main__":
    print(caption(Path(sys.argv[1]), Path(sys.argv[2])))
