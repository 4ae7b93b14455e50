"""The notebook's way, to compare with: one photo per `predict`, a greedy loop of `predict`.

`python -m benchmarks.notebook ARTIFACTS PHOTO` captions one photo so, from a cold shell.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_MAX_WORDS = 32


def load_encoder(artifacts: Path) -> Any:
    """Build Xception by Keras' own constructor and load the weights into it."""
    from pipeline.backend import keras  # noqa: PLC0415  (part of what is measured)

    encoder = keras.applications.Xception(weights=None, include_top=False, pooling="avg")
    encoder.load_weights(artifacts / "encoder.weights.h5")
    return encoder


def encode(encoder: Any, photo: Path) -> Any:
    """Return one photo's vector, (1, 2048)."""
    with Image.open(photo) as image:
        pixels = np.asarray(image.convert("RGB").resize((299, 299)), np.float32)
    return encoder.predict(pixels[None] / 127.5 - 1, verbose=0)


def caption(artifacts: Path, photo: Path) -> str:
    """Caption one photo greedily, the whole prefix through the network for every word."""
    from pipeline.captioner.model import Model  # noqa: PLC0415  (part of what is measured)
    from pipeline.captions.vocabulary import END, START, Vocabulary  # noqa: PLC0415

    vocabulary = Vocabulary.load(artifacts / "vocabulary.json")
    network = Model.load(artifacts / "model", vocabulary).decoders[0].network
    vector = encode(load_encoder(artifacts), photo)
    ids = [START]
    while len(ids) <= _MAX_WORDS and ids[-1] != END:
        logits = network.predict([vector, np.array([ids], np.int32)], verbose=0)
        ids.append(int(logits[0, -1].argmax()))
    return vocabulary.decode([i for i in ids if i not in (START, END)])


if __name__ == "__main__":
    print(caption(Path(sys.argv[1]), Path(sys.argv[2])))
