"""A tiny captioner for tests: features of eight photos, captions, decoders with eight units."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from ruamel.yaml import YAML

from pipeline.backend import keras
from pipeline.captioner.decoders.decoder import Decoder, build_decoder
from pipeline.captioner.generation.interfaces import StepDecoder
from pipeline.captioner.model_config import DecoderConfig
from pipeline.captioner.training.batches import Batches
from pipeline.datasets.caption_table import SCHEMA, write_caption_table
from pipeline.features.store import FeatureStore, write_store
from pipeline.files import write_json
from pipeline.text.vocabulary import END, START, Vocabulary
from tests.conftest import FEATURE_SPEC

ROOT = Path(__file__).parents[2]

PHOTOS = [f"{number}.jpg" for number in range(8)]
CAPTIONS = [
    ("0.jpg", "a dog runs"),
    ("1.jpg", "a cat"),
    ("2.jpg", "a big dog runs on grass"),
    ("3.jpg", "a dog"),
    ("4.jpg", "two cats sleep on a bed"),
    ("5.jpg", "a dog sleeps"),
    ("6.jpg", "a cat runs"),
    ("7.jpg", "grass"),
    ("0.jpg", "a big dog"),
    ("2.jpg", "dog"),
]

# All of one length, so that one shape is compiled; all words occur in CAPTIONS too.
SAME_LENGTH_CAPTIONS = [
    ("0.jpg", "a dog runs"),
    ("1.jpg", "a cat runs"),
    ("2.jpg", "a big dog"),
    ("3.jpg", "a dog sleeps"),
    ("4.jpg", "two cats sleep"),
    ("5.jpg", "a dog runs"),
    ("6.jpg", "two cats runs"),
    ("7.jpg", "grass on grass"),
]
SAME_LENGTH_DEV_CAPTIONS = [("1.jpg", "a cat sleeps"), ("3.jpg", "dog on grass")]


class Killed(Exception):  # noqa: N818  (not an error)
    """Stands for SIGKILL."""


def make_vocabulary(captions: Sequence[tuple[str, str]] = CAPTIONS) -> Vocabulary:
    return Vocabulary.build((text for _, text in captions), 1, "captions")


def vectors(shape: Sequence[int] = (6,), count: int = 8, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


def make_store(
    path: Path, photos: Sequence[str] = PHOTOS, shape: Sequence[int] = (6,)
) -> FeatureStore:
    """Write and open a store: row i is `vectors(shape)[i]`."""
    rows = [(list(range(len(photos))), vectors(shape, len(photos)))]
    shas = {image_id: f"sha256 of {image_id}" for image_id in photos}
    write_store(path, FEATURE_SPEC, shas, {"gone.jpg": "empty file"}, rows)
    return FeatureStore.open(path)


def make_batches(
    store: FeatureStore,
    captions: Sequence[tuple[str, str]] = CAPTIONS,
    batch_size: int = 4,
    max_words: int = 50,
) -> Batches:
    return Batches(captions, store, make_vocabulary(), batch_size, max_words)


def make_decoder(
    vocabulary_size: int = len(make_vocabulary()),
    feature_shape: tuple[int, ...] = (6,),
    seed: int = 1,
    dropout: float = 0.5,
    name: str = "merge",
    **options: Any,
) -> Decoder:
    """Build a decoder with Keras' default initial weights; see `DecoderConfig` for options."""
    keras.utils.set_random_seed(seed)
    return build_decoder(
        DecoderConfig(name, vocabulary_size, feature_shape, 8, 8, dropout, dropout, **options)
    )


def make_peaked_decoder(
    vocabulary_size: int = len(make_vocabulary()),
    feature_shape: tuple[int, ...] = (6,),
    seed: int = 1,
    name: str = "merge",
    **options: Any,
) -> Decoder:
    """Build a decoder with weights so large that its word distributions are peaked."""
    decoder = make_decoder(vocabulary_size, feature_shape, name=name, **options)
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=weight.shape) for weight in decoder.network.get_weights()]
    # If all ReLU units were dead, captions would be equally likely in any order of words.
    for position, weight in enumerate(decoder.network.weights):
        if weight.path == "fusion/bias":
            weights[position] += 2.0
    decoder.network.set_weights(weights)
    return decoder


def weight_bytes(decoder: Decoder) -> bytes:
    return b"".join(weight.tobytes() for weight in decoder.network.get_weights())


def add_to_logit(decoder: Decoder, word: int, value: float) -> None:
    """Add a value to a word's logit at every step."""
    *others, bias = decoder.network.get_weights()
    bias[word] += value
    decoder.network.set_weights([*others, bias])


def sequence_logits(decoder: Decoder, features: Any, ids: Any) -> npt.NDArray[np.float64]:
    """Return the logits (B, T, V) of the whole-sequence network."""
    logits = decoder.network([features, np.asarray(ids, np.int32)], training=False)
    return np.asarray(keras.ops.convert_to_numpy(logits), np.float64)


class StatelessDecoder:
    """A `StepDecoder` without a network: subclasses predict from the last word alone."""

    def predict(self, words: npt.NDArray[np.int32]) -> npt.NDArray[Any]:
        """Return the logits (R, V) after words (R,)."""
        raise NotImplementedError

    def begin(self, features: npt.NDArray[np.float32]) -> None:
        """Return no state."""

    def advance(
        self,
        ids: npt.NDArray[np.int32],
        photos: npt.NDArray[np.int_],
        parents: npt.NDArray[np.int_],
        state: None,
    ) -> tuple[npt.NDArray[Any], None]:
        """Return the prediction; see `StepDecoder`."""
        assert len(ids) == len(photos) == len(parents) > 0
        assert (np.diff(photos) >= 0).all()
        return self.predict(ids[:, -1]), state


def step_logits(
    decoder: StepDecoder, features: npt.NDArray[np.float32], ids: npt.NDArray[np.int32]
) -> npt.NDArray[Any]:
    """Return the logits (B, T, V) after each word of one caption for each photo, (B, T)."""
    state, rows = decoder.begin(features), np.arange(len(ids))
    all_logits = []
    for position in range(ids.shape[1]):
        logits, state = decoder.advance(ids[:, : position + 1], rows, rows, state)
        all_logits.append(logits)
    return np.stack(all_logits, axis=1)


def log_softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def log_probability(
    decoder: Decoder, features: npt.NDArray[np.float32], ids: Sequence[int]
) -> float:
    """Compute the log-probability of one photo's caption with the whole-sequence network."""
    log_probs = log_softmax(sequence_logits(decoder, features[None], [[START, *ids]]))[0]
    return float(sum(log_probs[position, word] for position, word in enumerate([*ids, END])))


def write_captions(path: Path, captions: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Write a caption table from (image_id, text) pairs by split."""
    rows = [
        (image_id, split, index, f"{text} .", text, len(text.split()))
        for split, pairs in captions.items()
        for index, (image_id, text) in enumerate(pairs)
    ]
    write_caption_table(path, pd.DataFrame(rows, columns=SCHEMA.names), {"dataset_format": "drawn"})


def write_extract_json(folder: Path, paths: Mapping[str, str] | None = None) -> None:
    """Write the part of extract.json that later stages read: the paths of the photos."""
    write_json(folder / "extract.json", {"paths": dict(paths or {})})


def write_params(folder: Path, **changes: dict[str, Any]) -> None:
    """Write a copy of the project's params.yaml, with some keys of sections changed."""
    yaml = YAML(typ="safe")
    values = yaml.load(ROOT / "params.yaml")
    for section, keys in changes.items():
        values[section] |= keys
    yaml.dump(values, folder / "params.yaml")
