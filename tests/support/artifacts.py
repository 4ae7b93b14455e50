"""A small finished run: a random MobileNet and a decoder trained on twelve photos."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.backend import keras
from pipeline.captioner.decoders.decoder import Decoder, build_decoder
from pipeline.captioner.generation.settings import SearchSettings
from pipeline.captioner.model_config import DecoderConfig
from pipeline.captioner.model_folder import Model
from pipeline.captioner.neighbours import fit_neighbours
from pipeline.captioner.word_detector import fit_detector
from pipeline.features.decoding.photos import decode_photo
from pipeline.features.encoders import pretrained
from pipeline.features.encoders.engines import KerasEngine
from pipeline.features.encoders.networks import make_encoder_config, with_preprocessing
from pipeline.files import write_json
from pipeline.storage import keras_weights
from pipeline.text.vocabulary import END, PAD, START, Vocabulary
from tests.conftest import encoded

SIZE = 32
SETTINGS = SearchSettings(
    beam_width=20,
    max_words=32,
    no_repeat_ngram_size=3,
    guidance=0.2,
    word_logit_bias=0.3,
    word_rerank_weight=3.0,
    neighbour_rerank_weight=0.5,
    ensemble=True,
)
LEARNED = [
    f"a {size} {animal} {end}"
    for size in ("big", "small")
    for animal in ("dog", "cat")
    for end in ("runs", "sleeps", "on grass")
]


def drawn(seed: int) -> Image.Image:
    """Draw a photo of sixteen flat colours; the decoder is trained on the first twelve seeds."""
    colours = np.random.default_rng(seed).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    return Image.fromarray(colours).resize((48, 40), Image.Resampling.NEAREST)


def write_photos(folder: Path, count: int) -> list[Path]:
    """Write photos 00.png, 01.png and so on; the number is the seed."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{seed:02}.png" for seed in range(count)]
    for seed, path in enumerate(paths):
        drawn(seed).save(path)
    return paths


def write_artifacts(folder: Path) -> None:
    """Write encoder, vocabulary, detector, neighbours, model and search settings."""
    network = _encoder()
    vocabulary = Vocabulary.build(LEARNED, 1, "captions")
    encoder = make_encoder_config("MobileNet", SIZE, "drawn", keras_weights.digest(network))
    photos = [decode_photo(encoded(drawn(s), "PNG"), SIZE, 10_000) for s in range(len(LEARNED))]
    engine = KerasEngine(with_preprocessing(network, "MobileNet"), len(photos))
    vectors = engine.encode(np.concatenate(photos))
    features = vectors.astype(np.float16).astype(np.float32)
    training = {
        "epochs": 1,
        "best": {"epoch": 1, "validation_loss": 1.0, "validation_cider_d": 9.0},
        "stopped": "overfitted",
    }
    model = Model.from_decoders(
        {2026: (_decoder(features, vocabulary), training)},
        encoder.feature_spec("whole", "average", 1, "float16"),
        vocabulary.fingerprint,
        {},
    )
    names = [str(seed) for seed in range(len(LEARNED))]
    captions = {name: [vocabulary.encode(text)] for name, text in zip(names, LEARNED, strict=True)}

    def read(ids: Iterable[str]) -> npt.NDArray[np.float32]:
        return features[[names.index(name) for name in ids]]

    detector = fit_detector(captions, read, len(vocabulary), ridge_alpha=0.3)
    neighbours = fit_neighbours(captions, read, detector)
    write_json(folder / "encoder.json", asdict(encoder))
    vocabulary.save(folder / "vocabulary.json")
    detector.save(folder / "detector.h5", vocabulary, model.config.feature_spec)
    neighbours.save(folder / "neighbours.h5", vocabulary, detector)
    keras_weights.save(network, folder / "encoder.weights.h5")
    model.save(folder / "model")
    SETTINGS.write(folder / "search.json")


def _encoder() -> Any:
    """Build a MobileNet whose features differ and are not too small for float16.

    With Keras' own initial weights the signal vanishes in the 27 layers.
    """
    network, _ = pretrained.fetch_encoder("MobileNet", "random", SIZE)
    random = np.random.default_rng(0)
    arrays = []
    for weight in network.weights:
        array = np.asarray(weight)
        if weight.path.endswith("kernel"):
            inputs = np.prod(array.shape[: 2 if "_dw_" in weight.path else 3])
            array = random.normal(0, 1.3 * np.sqrt(2 / inputs), array.shape)
        arrays.append(array)
    network.set_weights(arrays)
    return network


def _decoder(features: npt.NDArray[np.float32], vocabulary: Vocabulary) -> Decoder:
    """Train a small merge decoder on one caption for each photo."""
    keras.utils.set_random_seed(1)
    config = DecoderConfig("merge", len(vocabulary), features.shape[1:], 8, 16, 0.0, 0.0)
    decoder = build_decoder(config)
    sequences = [[START, *vocabulary.encode(caption), END] for caption in LEARNED]
    length = max(map(len, sequences))
    ids = np.array([s + [PAD] * (length - len(s)) for s in sequences], np.int32)
    decoder.network.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=PAD),
    )
    for _ in range(400):
        decoder.network.train_on_batch([features, ids[:, :-1]], ids[:, 1:])
    return decoder
