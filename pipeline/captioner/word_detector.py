"""The word detector: which words people would use of a photo, in whatever order.

A linear regression with a ridge (Hoerl and Kennard 1970) from what the CNN saw to the share of a
photo's captions that have each word. A decoder learns to see and to speak from the same captions;
this learns to see alone, and of few photos sees more (docs/results.md). Visual word
detectors beside a language model: Fang et al. 2015, "From captions to visual concepts and back".
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError, collapsed
from pipeline.features.feature_spec import FeatureSpec
from pipeline.files import atomic_path
from pipeline.storage.hdf5 import (
    CORRUPTION_ERRORS,
    check_extent,
    create_file,
    open_self_contained,
    read_attribute,
)
from pipeline.text.vocabulary import SPECIAL_TOKENS, Vocabulary

FORMAT_VERSION = 2
FIX = "run `dvc repro detector`"
_BELONGS_TO = ("vocabulary", "captions", "encoding")
_PHOTOS = 64  # read at once: a grid of Xception's two scales is 1.1 MB of each
# Added to a share of captions before it is compared with another: a tenth of one of five captions.
_FLOOR = 0.02
# What no regression of shares comes near; numbers beyond would become infinite in use.
_GREATEST = 1e6

Array = npt.NDArray[np.float32]
Read = Callable[[Iterable[str]], Array]


@dataclass(frozen=True)
class WordDetector:
    """The regression, and what is known of words without a photo.

    Attributes:
        mean: (D,) of the training photos' vectors, of all places.
        weights: (D, V) from a photo's direction from that mean to what each id's share has more
            than usual.
        prior: (V,) the share of a training photo's captions that have each id; 0 of markers.
        idf: (V,) natural logarithm of how many training photos there are for each one whose
            captions have the id, as CIDEr-D weighs words; 0 of markers.
    """

    mean: Array
    weights: Array
    prior: Array
    idf: Array

    def detect(self, features: Array) -> Array:
        """Return the share of captions that would have each id, (N, V), of (N, D) or (N, P, D)."""
        directions = np.zeros((len(features), len(self.mean)), np.float32)
        for start in range(0, len(features), _PHOTOS):
            part = slice(start, start + _PHOTOS)
            directions[part] = _directions(features[part], self.mean)
        expected: Array = np.maximum(directions @ self.weights + self.prior, np.float32(0))
        return expected

    def top_words(self, features: Array, count: int) -> list[list[int]]:
        """Return the ids detected that tell most of each photo, likely and rare ones first.

        Args:
            features: (N, D) or (N, P, D).
            count: of each photo, at most; none is told that is not detected at all.
        """
        found: list[list[int]] = []
        for shares in self.detect(features):
            weighed = shares * self.idf
            first = np.argsort(-weighed, kind="stable")[:count]
            found.append(first[weighed[first] > 0].tolist())
        return found

    def log_odds(self, shares: Array) -> Array:
        """Return the logarithm of how much likelier than usual ids are, (N, V), of such shares.

        Negative where they are less likely; hardly beyond -4 to 4, since shares have a floor.
        """
        return np.log((shares + _FLOOR) / (self.prior + _FLOOR))

    def save(self, path: Path, vocabulary: Vocabulary, encoding: FeatureSpec) -> None:
        """Write the detector as HDF5, equal ones to equal bytes.

        Args:
            path: the file to write.
            vocabulary: that the ids are of; of the captions that were learned from.
            encoding: of the features.

        Raises:
            OSError: the disk does not take it all; `path` is left as it was.
        """
        with atomic_path(path) as temporary, create_file(temporary) as (file, output):
            file.attrs["format_version"] = FORMAT_VERSION
            file.attrs["vocabulary"] = np.bytes_(vocabulary.fingerprint)
            file.attrs["captions"] = np.bytes_(vocabulary.captions_fingerprint)
            file.attrs["encoding"] = np.bytes_(encoding.fingerprint)
            file.attrs["sha256"] = np.bytes_(self.digest)
            for name, array in self._arrays.items():
                file.create_dataset(name, data=array)
                output.check()

    @staticmethod
    def load(
        path: Path,
        vocabulary: Vocabulary,
        encoding: FeatureSpec,
        width: int,
        captions: str | None = None,
    ) -> "WordDetector":
        """Read a detector.

        Args:
            path: the file.
            vocabulary: that its ids have to be of.
            encoding: of the features that it has to have learned from.
            width: numbers of one vector of those.
            captions: fingerprint of the caption table that it has to have learned from; None is
                any with these words.

        Raises:
            InputError: the file is absent, damaged, of another version, or does not belong
                to these.
        """
        with open_self_contained(path, FIX) as file:
            try:
                version = file.attrs["format_version"]
                if version != FORMAT_VERSION:
                    raise ValueError(f"format version {version}, not {FORMAT_VERSION}")
                own = {name: read_attribute(file, name) for name in _BELONGS_TO}
                found = WordDetector(
                    **{field.name: _read(file[field.name]) for field in fields(WordDetector)}
                )
                if found.digest != read_attribute(file, "sha256"):
                    raise ValueError("its numbers are not those that were written")
                found.check()
            except CORRUPTION_ERRORS as error:
                raise InputError(f"{path} is no detector ({collapsed(error)}): {FIX}") from None
        if own["vocabulary"] != vocabulary.fingerprint or len(found.prior) != len(vocabulary):
            raise InputError(f"{path} was made with another vocabulary: {FIX}")
        if own["encoding"] != encoding.fingerprint or len(found.mean) != width:
            raise InputError(f"{path} was made from features of another making: {FIX}")
        if captions not in (None, own["captions"]):
            raise InputError(f"{path} was made from other captions: {FIX}")
        return found

    def check(self) -> None:
        """Refuse arrays that do not fit together, or numbers that make no sense.

        Raises:
            ValueError: naming the array.
        """
        width, size = self.mean.size, self.prior.size
        shapes = {"mean": (width,), "weights": (width, size), "prior": (size,), "idf": (size,)}
        least = {"mean": -_GREATEST, "weights": -_GREATEST, "prior": 0, "idf": 0}
        for name, array in self._arrays.items():
            if array.shape != shapes[name]:
                raise ValueError(f"{name} does not fit the others")
            # So written, it refuses what is no number as well.
            if not ((array >= least[name]) & (array <= _GREATEST)).all():
                raise ValueError(f"{name} has numbers out of all bounds")

    @property
    def digest(self) -> str:
        """SHA-256 of all numbers as little-endian float32, and of their shapes."""
        whole = hashlib.sha256()
        for name, array in self._arrays.items():
            whole.update(f"{name} {array.shape}".encode())
            whole.update(np.ascontiguousarray(array, "<f4").tobytes())
        return whole.hexdigest()

    @property
    def _arrays(self) -> dict[str, Array]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def fit_detector(
    captions: Mapping[str, Sequence[Sequence[int]]],
    read: Read,
    vocabulary_size: int,
    ridge_alpha: float,
) -> WordDetector:
    """Learn which words are said of what; memory does not grow with the photos.

    Args:
        captions: of each training photo, the ids of their words.
        read: returns photos' features, (n, D) or (n, P, D).
        vocabulary_size: ids, markers included.
        ridge_alpha: of the ridge, added to the squared lengths of all photos' directions, each 1.

    Raises:
        ValueError: the penalty is too small for so few photos.
    """
    ids = list(captions)

    def parts() -> Iterator[tuple[Array, Array]]:
        for start in range(0, len(ids), _PHOTOS):
            part = ids[start : start + _PHOTOS]
            yield read(part), _shares([captions[i] for i in part], vocabulary_size)

    mean, prior, idf = _averages(parts(), len(ids))
    products = np.eye(len(mean)) * ridge_alpha
    said = np.zeros((len(mean), vocabulary_size))
    for features, shares in parts():
        seen = _directions(features, mean).astype(np.float64)
        products += seen.T @ seen
        said += seen.T @ (shares - prior)
    weights = np.linalg.solve(products, said).astype(np.float32)  # or a LinAlgError, a ValueError
    detector = WordDetector(mean, weights, prior, idf)
    detector.check()
    return detector


def _averages(parts: Iterable[tuple[Array, Array]], count: int) -> tuple[Array, Array, Array]:
    """Return mean, usual and rarity (see `WordDetector`) of so many photos."""
    mean, prior, photos = np.zeros(()), np.zeros(()), np.zeros(())
    for features, shares in parts:
        of_each = features.reshape(len(features), -1, features.shape[-1]).mean(axis=1)
        mean = mean + of_each.sum(axis=0, dtype=np.float64)
        prior = prior + shares.sum(axis=0, dtype=np.float64)
        photos = photos + (shares > 0).sum(axis=0)
    idf = np.log(count / np.maximum(photos, 1))
    idf[: len(SPECIAL_TOKENS)] = 0
    return (
        (mean / count).astype(np.float32),
        (prior / count).astype(np.float32),
        idf.astype(np.float32),
    )


def _directions(features: Array, mean: Array) -> Array:
    """Return the direction in which photos differ from the mean one, (N, D), each of length 1.

    Of places it is the mean of theirs: none counts for more because its numbers are larger.
    """
    apart = _unit(features - mean)
    return apart if apart.ndim == mean.ndim + 1 else _unit(apart.mean(axis=1))


def _unit(vectors: Array) -> Array:
    """Make vectors (..., D) equally long; those of zeros stay."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: Array = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return unit


def _shares(captions: Sequence[Sequence[Sequence[int]]], vocabulary_size: int) -> Array:
    """Return the share of each photo's captions that have each id, (N, V); 0 of markers."""
    shares = np.zeros((len(captions), vocabulary_size), np.float32)
    for row, of_photo in zip(shares, captions, strict=True):
        for ids in of_photo:
            row[list(set(ids))] += 1 / len(of_photo)
    shares[:, : len(SPECIAL_TOKENS)] = 0
    return shares


def _read(dataset: Any) -> Array:
    check_extent(dataset)
    return np.asarray(dataset, np.float32)
