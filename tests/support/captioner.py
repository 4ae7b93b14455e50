"""Small things to caption with: features of eight photos, captions, a decoder of eight units."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from ruamel.yaml import YAML

from pipeline.backend import keras
from pipeline.captioner.decoders.decoder import Decoder, build_decoder
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

# Of one length, so that there is one shape to compile for; the words are in CAPTIONS as well.
EVEN = [
    ("0.jpg", "a dog runs"),
    ("1.jpg", "a cat runs"),
    ("2.jpg", "a big dog"),
    ("3.jpg", "a dog sleeps"),
    ("4.jpg", "two cats sleep"),
    ("5.jpg", "a dog runs"),
    ("6.jpg", "two cats runs"),
    ("7.jpg", "grass on grass"),
]
EVEN_DEV = [("1.jpg", "a cat sleeps"), ("3.jpg", "dog on grass")]


class Killed(Exception):  # noqa: N818  (no error)
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
    """Build a decoder with Keras' own initial weights; see `DecoderConfig` for options."""
    keras.utils.set_random_seed(seed)
    return build_decoder(
        DecoderConfig(name, vocabulary_size, feature_shape, 8, 8, dropout, dropout, **options)
    )


def make_decided_decoder(
    vocabulary_size: int = len(make_vocabulary()),
    feature_shape: tuple[int, ...] = (6,),
    seed: int = 1,
    name: str = "merge",
    **options: Any,
) -> Decoder:
    """Build a decoder whose weights are so large that its words are not all alike."""
    decoder = make_decoder(vocabulary_size, feature_shape, name=name, **options)
    random = np.random.default_rng(seed)
    weights = [random.normal(size=weight.shape) for weight in decoder.network.get_weights()]
    # With all of a photo's units dead, captions in any order of words would be equally likely.
    for position, weight in enumerate(decoder.network.weights):
        if weight.path == "joined/bias":
            weights[position] += 2.0
    decoder.network.set_weights(weights)
    return decoder


def weights_of(decoder: Decoder) -> bytes:
    return b"".join(weight.tobytes() for weight in decoder.network.get_weights())


def add_to_logit(decoder: Decoder, word: int, value: float) -> None:
    """Make a word likelier, or less likely, everywhere."""
    *others, bias = decoder.network.get_weights()
    bias[word] += value
    decoder.network.set_weights([*others, bias])


def logits_of(decoder: Decoder, features: Any, ids: Any) -> npt.NDArray[np.float64]:
    """Return the whole-sequence network's logits (B, T, V)."""
    found = decoder.network([features, np.asarray(ids, np.int32)], training=False)
    return np.asarray(keras.ops.convert_to_numpy(found), np.float64)


def log_softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result


def log_probability(
    decoder: Decoder, features: npt.NDArray[np.float32], ids: Sequence[int], *, finished: bool
) -> float:
    """Score one photo's caption by the whole-sequence network, a term for each word."""
    targets = [*ids, END] if finished else [*ids]
    inputs = [START, *ids][: len(targets)]
    scores = log_softmax(logits_of(decoder, features[None], [inputs]))[0]
    return float(sum(scores[position, word] for position, word in enumerate(targets)))


def write_captions(path: Path, captions: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Write a caption table: split to (image_id, text) pairs."""
    rows = [
        (image_id, split, index, f"{text} .", text, len(text.split()))
        for split, pairs in captions.items()
        for index, (image_id, text) in enumerate(pairs)
    ]
    write_caption_table(path, pd.DataFrame(rows, columns=SCHEMA.names), {"dataset_format": "drawn"})


def write_extract_json(folder: Path, paths: Mapping[str, str] | None = None) -> None:
    """Write what later stages read of extract.json: where the photos were."""
    write_json(folder / "extract.json", {"paths": dict(paths or {})})


def write_params(folder: Path, **changes: dict[str, Any]) -> None:
    """Write the project's own params.yaml, with sections' keys changed."""
    yaml = YAML(typ="safe")
    values = yaml.load(ROOT / "params.yaml")
    for section, keys in changes.items():
        values[section] |= keys
    yaml.dump(values, folder / "params.yaml")
