"""The word detector: predicts from a photo's features which words its captions contain.

A ridge regression (Hoerl and Kennard 1970) from features to the share of a photo's captions that
have each word. A decoder learns vision and language together from the same captions; the
detector learns only vision, and detects more than the decoder does where photos are few
(docs/results.md). Fang et al. 2015, "From captions to visual
concepts and back", also combine a visual word detector with a language model.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.features.feature_spec import FeatureSpec
from pipeline.progress import track
from pipeline.storage.hdf5 import (
    arrays_digest,
    check_dataset,
    open_as,
    read_integer_attribute,
    read_text_attribute,
    write_arrays,
)
from pipeline.text.vocabulary import SPECIAL_TOKENS, Vocabulary

FORMAT_VERSION = 2
FIX = "run `dvc repro detector`"
_INPUTS = ("vocabulary", "captions", "feature_spec")  # attributes with their fingerprints
_CHUNK = 64  # photos read at once: a photo's grid from two scales of Xception is 1.1 MB
# Added to shares before their ratio is taken: a tenth of one caption in five.
_SHARE_FLOOR = 0.02
# No regression of shares comes near it; larger numbers could overflow in use.
_MAX_ABS = 1e6

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class WordDetector:
    """The regression, and the words' statistics in the training captions.

    Attributes:
        mean: (D,) mean of the training photos' features, over all photos and positions.
        weights: (D, V) coefficients, from the direction of a photo's features relative to the
            mean, to the difference of each id's share from its prior.
        prior: (V,) mean share of a training photo's captions that have each id; 0 for special
            tokens.
        idf: (V,) inverse document frequency, log(photos / photos whose captions have the id),
            the weight of words in CIDEr-D; 0 for special tokens.
    """

    mean: _Floats
    weights: _Floats
    prior: _Floats
    idf: _Floats

    def directions(self, features: _Floats) -> _Floats:
        """Return the directions of features (N, D) or (N, P, D) from the mean, (N, D)."""
        directions = np.zeros((len(features), len(self.mean)), np.float32)
        for start in range(0, len(features), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            directions[chunk] = _unit_directions(features[chunk], self.mean)
        return directions

    def detect(self, features: _Floats) -> _Floats:
        """Predict the share of captions that have each id, (N, V), from (N, D) or (N, P, D)."""
        products = self.directions(features) @ self.weights
        shares: _Floats = np.maximum(products + self.prior, np.float32(0))
        return shares

    def top_words(self, features: _Floats, count: int) -> list[list[int]]:
        """Return each photo's most informative ids, by descending product of share and idf.

        Args:
            features: (N, D) or (N, P, D).
            count: maximum number of ids for each photo; ids with a share of 0 are left out.
        """
        result: list[list[int]] = []
        for scores in self.detect(features) * self.idf:
            top = np.argsort(-scores, kind="stable")[:count]
            result.append(top[scores[top] > 0].tolist())
        return result

    def log_odds(self, shares: _Floats) -> _Floats:
        """Return log((share + floor) / (prior + floor)), (N, V), for shares (N, V).

        Positive for ids that are more likely than in the average photo. The floor keeps log-odds
        roughly between -4 and 4.
        """
        return np.log((shares + _SHARE_FLOOR) / (self.prior + _SHARE_FLOOR))

    def save(self, path: Path, vocabulary: Vocabulary, feature_spec: FeatureSpec) -> None:
        """Write the detector as HDF5; equal detectors give equal bytes.

        Args:
            path: the file to write.
            vocabulary: defines the ids; records which captions were used.
            feature_spec: specification of the features.

        Raises:
            OSError: writing failed; `path` is left as it was.
        """
        fingerprints = {
            "vocabulary": vocabulary.fingerprint,
            "captions": vocabulary.captions_fingerprint,
            "feature_spec": feature_spec.fingerprint,
        }
        write_arrays(path, FORMAT_VERSION, fingerprints, self._arrays)

    @staticmethod
    def load(
        path: Path,
        vocabulary: Vocabulary,
        feature_spec: FeatureSpec,
        feature_size: int,
        captions_fingerprint: str | None = None,
    ) -> "WordDetector":
        """Read a detector and check that it belongs to these inputs.

        Args:
            path: the file.
            vocabulary: must define its ids.
            feature_spec: specification of the features it must have been fitted on.
            feature_size: length D of such a feature vector.
            captions_fingerprint: fingerprint of the caption table that it must have been fitted
                on; None accepts any table with this vocabulary.

        Raises:
            InputError: the file is absent, damaged, has another format version, or does not
                belong to these inputs.
        """
        with open_as(path, "a word detector", FIX) as file:
            detector = _read_detector(file)
            inputs = {name: read_text_attribute(file, name) for name in _INPUTS}
        same_vocabulary = inputs["vocabulary"] == vocabulary.fingerprint
        if not same_vocabulary or len(detector.prior) != len(vocabulary):
            raise InputError(f"{path} was fitted with another vocabulary: {FIX}")
        if inputs["feature_spec"] != feature_spec.fingerprint or len(detector.mean) != feature_size:
            raise InputError(f"{path} was fitted on other features than the model's: {FIX}")
        if captions_fingerprint not in (None, inputs["captions"]):
            raise InputError(f"{path} was fitted on other captions: {FIX}")
        return detector

    def check(self) -> None:
        """Check that the arrays fit together and their numbers are within bounds.

        Raises:
            ValueError: an array is invalid; the message names it.
        """
        width, size = self.mean.size, self.prior.size
        shapes = {"mean": (width,), "weights": (width, size), "prior": (size,), "idf": (size,)}
        minimum = {"mean": -_MAX_ABS, "weights": -_MAX_ABS, "prior": 0, "idf": 0}
        for name, array in self._arrays.items():
            if array.shape != shapes[name]:
                raise ValueError(f"the shape of {name} does not fit the other arrays")
            # The comparison is false for NaN, so NaN is refused too.
            if not ((array >= minimum[name]) & (array <= _MAX_ABS)).all():
                raise ValueError(f"{name} has numbers out of bounds")

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the arrays, as little-endian float32, with their names and shapes."""
        return arrays_digest(
            {name: array.astype("<f4", copy=False) for name, array in self._arrays.items()}
        )

    @property
    def _arrays(self) -> dict[str, _Floats]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def fit_memory(feature_size: int, vocabulary_size: int) -> int:
    """Return about how many bytes `fit_detector` needs: its matrices and the solver's copies."""
    matrices = 2 * feature_size**2 + 4 * feature_size * vocabulary_size
    return matrices * np.float64().nbytes


def fit_detector(
    captions: Mapping[str, Sequence[Sequence[int]]],
    read_features: Callable[[Iterable[str]], _Floats],
    vocabulary_size: int,
    ridge_alpha: float,
) -> WordDetector:
    """Fit the regression; the memory it needs does not depend on the number of photos.

    Args:
        captions: image_id of each training photo to the ids of its captions.
        read_features: returns the features of photos, (n, D) or (n, P, D).
        vocabulary_size: number of ids, special tokens included.
        ridge_alpha: strength of the L2 penalty, relative to the mean squared error of a photo; the
            inputs are unit vectors.

    Raises:
        ValueError: the penalty is too small for so few photos.
    """
    image_ids = list(captions)

    def chunks() -> Iterator[tuple[_Floats, _Floats]]:
        starts = range(0, len(image_ids), _CHUNK)
        for start in track(starts, "detector", len(starts), f"batches of {_CHUNK} photos"):
            chunk = image_ids[start : start + _CHUNK]
            shares = _caption_shares([captions[i] for i in chunk], vocabulary_size)
            yield read_features(chunk), shares

    mean, prior, idf = _statistics(chunks(), len(image_ids))
    # The normal equations: (X'X + n alpha I) weights = X'Y.
    gram = np.eye(len(mean)) * (len(image_ids) * ridge_alpha)
    moments = np.zeros((len(mean), vocabulary_size))
    for features, shares in chunks():
        directions = _unit_directions(features, mean).astype(np.float64)
        gram += directions.T @ directions
        moments += directions.T @ (shares - prior)
    weights = np.linalg.solve(gram, moments).astype(np.float32)  # LinAlgError is a ValueError
    detector = WordDetector(mean, weights, prior, idf)
    detector.check()
    return detector


def _statistics(
    chunks: Iterable[tuple[_Floats, _Floats]], photo_count: int
) -> tuple[_Floats, _Floats, _Floats]:
    """Return mean, prior and idf (see `WordDetector`) from features and shares."""
    mean, prior, document_frequency = np.zeros(()), np.zeros(()), np.zeros(())
    for features, shares in chunks:
        photo_means = features.reshape(len(features), -1, features.shape[-1]).mean(axis=1)
        mean = mean + photo_means.sum(axis=0, dtype=np.float64)
        prior = prior + shares.sum(axis=0, dtype=np.float64)
        document_frequency = document_frequency + (shares > 0).sum(axis=0)
    idf = np.log(photo_count / np.maximum(document_frequency, 1))
    idf[: len(SPECIAL_TOKENS)] = 0
    return (
        (mean / photo_count).astype(np.float32),
        (prior / photo_count).astype(np.float32),
        idf.astype(np.float32),
    )


def _unit_directions(features: _Floats, mean: _Floats) -> _Floats:
    """Return the directions of features relative to the mean, (N, D), each of length 1.

    For features (N, P, D) it is the mean of the positions' directions, so that no position
    counts more because its numbers are larger.
    """
    directions = _normalize(features - mean)
    return directions if directions.ndim == mean.ndim + 1 else _normalize(directions.mean(axis=1))


def _normalize(vectors: _Floats) -> _Floats:
    """Scale vectors (..., D) to length 1; zero vectors stay zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: _Floats = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return unit


def _caption_shares(photos: Sequence[Sequence[Sequence[int]]], vocabulary_size: int) -> _Floats:
    """Return the share of each photo's captions that have each id, (N, V); 0 for special tokens."""
    shares = np.zeros((len(photos), vocabulary_size), np.float32)
    for row, captions in zip(shares, photos, strict=True):
        for ids in captions:
            row[list(set(ids))] += 1 / len(captions)
    shares[:, : len(SPECIAL_TOKENS)] = 0
    return shares


def _read_detector(file: Any) -> WordDetector:
    version = read_integer_attribute(file, "format_version")
    if version != FORMAT_VERSION:
        raise ValueError(f"format version {version}, not {FORMAT_VERSION}")
    arrays = {field.name: _read_array(file[field.name]) for field in fields(WordDetector)}
    detector = WordDetector(**arrays)
    if detector.digest != read_text_attribute(file, "sha256"):
        raise ValueError("its numbers do not match their digest")
    detector.check()
    return detector


def _read_array(dataset: Any) -> _Floats:
    check_dataset(dataset, "f")
    return np.asarray(dataset, np.float32)
