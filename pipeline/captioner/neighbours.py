"""Neighbours: the training photos that are most like a photo, and their captions.

Of several captions that a decoder finds equally likely, the one that most resembles the captions
of similar photos is the best guess (Devlin et al. 2015, "Exploring nearest neighbor approaches for
image captioning", who return the consensus of the neighbours' captions itself).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.captioner.word_detector import WordDetector
from pipeline.errors import InputError
from pipeline.metrics.cider import CiderD
from pipeline.metrics.document_frequencies import DocumentFrequencies
from pipeline.metrics.ngrams import NgramCounts, Tokens
from pipeline.metrics.references import References
from pipeline.progress import track
from pipeline.storage.hdf5 import (
    arrays_digest,
    check_dataset,
    open_as,
    read_integer_attribute,
    read_text_attribute,
    write_arrays,
)
from pipeline.text.vocabulary import Vocabulary

FORMAT_VERSION = 1
FIX = "run `dvc repro detector`"
COUNT = 20  # neighbours whose captions are compared
_TEMPERATURE = 0.1  # a neighbour whose cosine is that much lower weighs 1 / e as much
# Of the 20 nearest of 6,000 photos by all 2,776 numbers, 256 principal components find 18.
_COMPONENTS = 256
_ITERATIONS = 6  # more change no neighbours
_CHUNK = 64  # photos read at once, as in the detector
_INPUTS = ("vocabulary", "captions", "detector")  # attributes with their fingerprints
_MAX_ABS = 1.01  # of numbers of unit vectors, with rounding
# The arrays as they are stored; all are little-endian.
_TYPES = {
    "components": "<f4",
    "coordinates": "<f2",
    "caption_counts": "<u4",
    "lengths": "<u4",
    "words": "<u4",
    "ngrams": "<u8",
    "document_frequencies": "<u4",
}

_Array = npt.NDArray[Any]
_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Neighbours:
    """The training photos' directions and captions.

    Attributes:
        components: (D, K) orthonormal columns; directions are compared in their space.
        coordinates: (N, K) the photos' directions (see `WordDetector.directions`) in that space,
            float32 with the precision of float16.
        caption_counts: (N,) number of captions of each photo, 1 or more.
        lengths: (C,) number of words of each caption, photo by photo.
        words: (T,) ids of all captions' words in a row.
        ngrams: (G,) the `keys` of the captions' `DocumentFrequencies`.
        document_frequencies: (G,) their `counts`.
    """

    components: _Floats
    coordinates: _Floats
    caption_counts: _Array
    lengths: _Array
    words: _Array
    ngrams: _Array
    document_frequencies: _Array

    def consensus(
        self, directions: _Floats, beams: Sequence[Sequence[Sequence[int]]]
    ) -> list[_Array]:
        """Return how much each caption resembles those of its photo's neighbours, (C,) by photo.

        It is the mean of its CIDEr-D, from 0 to 10, with each of the neighbours' captions, weighted
        by the neighbours' nearness.

        Args:
            directions: (B, D) the photos' directions.
            beams: for each photo C captions, as word ids.
        """
        return [
            self._consensus(photos, weights, captions)
            for photos, weights, captions in zip(*self.nearest(directions), beams, strict=True)
        ]

    def nearest(self, directions: _Floats) -> tuple[_Array, _Array]:
        """Return the rows of each photo's neighbours, nearest first, and their weights.

        Args:
            directions: (B, D) the photos' directions.

        Returns:
            Two arrays (B, `COUNT`), or (B, N) if there are fewer training photos.
        """
        count = min(COUNT, len(self.coordinates))
        rows = np.zeros((len(directions), count), np.int64)
        cosines = np.zeros((len(directions), count), np.float32)
        for start in range(0, len(directions), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            products = directions[chunk] @ self.components @ self.coordinates.T
            rows[chunk] = np.argsort(-products, axis=1, kind="stable")[:, :count]
            cosines[chunk] = np.take_along_axis(products, rows[chunk], axis=1)
        return rows, np.exp((cosines - cosines[:, :1]) / _TEMPERATURE)

    def save(self, path: Path, vocabulary: Vocabulary, detector: WordDetector) -> None:
        """Write the neighbours as HDF5; equal ones give equal bytes.

        Args:
            path: the file to write.
            vocabulary: defines the ids; records which captions were used.
            detector: defines the directions.

        Raises:
            OSError: writing failed; `path` is left as it was.
        """
        write_arrays(path, FORMAT_VERSION, _fingerprints(vocabulary, detector), self._stored)

    @staticmethod
    def load(path: Path, vocabulary: Vocabulary, detector: WordDetector) -> "Neighbours":
        """Read neighbours and check that they belong to these inputs.

        Args:
            path: the file.
            vocabulary: must define their ids, and be of the same captions.
            detector: must define their directions; is itself checked against the model.

        Raises:
            InputError: the file is absent, damaged, has another format version, or does not
                belong to these inputs.
        """
        with open_as(path, "a file of neighbours", FIX) as file:
            neighbours = _read(file)
            inputs = {name: read_text_attribute(file, name) for name in _INPUTS}
        for name, fingerprint in _fingerprints(vocabulary, detector).items():
            if inputs[name] != fingerprint:
                raise InputError(f"{path} was made with another {name}: {FIX}")
        if len(neighbours.components) != len(detector.mean):
            raise InputError(f"{path} was made with another detector: {FIX}")
        if neighbours.words.max(initial=0) >= len(vocabulary):
            raise InputError(f"{path} was made with another vocabulary: {FIX}")
        return neighbours

    def check(self) -> None:
        """Check that the arrays fit together and their numbers are within bounds.

        Raises:
            ValueError: an array is invalid; the message names it.
        """
        for name in ("components", "coordinates"):
            array = getattr(self, name)
            if array.ndim != 2 or array.shape[1] != self.components.shape[-1]:  # noqa: PLR2004
                raise ValueError(f"the shape of {name} does not fit the other arrays")
            # The comparison is false for NaN, so NaN is refused too.
            if not (np.abs(array) <= _MAX_ABS).all():
                raise ValueError(f"{name} has numbers out of bounds")
        sizes = {
            "caption_counts": len(self.coordinates),
            "lengths": int(self.caption_counts.sum(dtype=np.uint64)),
            "words": int(self.lengths.sum(dtype=np.uint64)),
            "ngrams": len(self.ngrams),
            "document_frequencies": len(self.ngrams),
        }
        for name, size in sizes.items():
            if getattr(self, name).shape != (size,):
                raise ValueError(f"the shape of {name} does not fit the other arrays")
        if not len(self.coordinates) or not self.caption_counts.all():
            raise ValueError("a photo has no captions, or there is none")
        frequencies = self.document_frequencies
        if (frequencies < 2).any() or (frequencies > len(self.coordinates)).any():  # noqa: PLR2004
            raise ValueError("document_frequencies has numbers out of bounds")
        if (self.ngrams[1:] <= self.ngrams[:-1]).any():
            raise ValueError("ngrams is not sorted")

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the arrays as they are stored, with their names and shapes."""
        return arrays_digest(self._stored)

    @property
    def _stored(self) -> dict[str, _Array]:
        return {name: getattr(self, name).astype(dtype) for name, dtype in _TYPES.items()}

    @cached_property
    def _corpus(self) -> DocumentFrequencies:
        return DocumentFrequencies(len(self.coordinates), self.ngrams, self.document_frequencies)

    @cached_property
    def _first_captions(self) -> _Array:
        """(N + 1,) photo i has the captions from position i to position i + 1 of this array."""
        return np.concatenate([[0], np.cumsum(self.caption_counts, dtype=np.int64)])

    @cached_property
    def _first_words(self) -> _Array:
        """(C + 1,) caption i has the words from position i to position i + 1 of this array."""
        return np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])

    def _consensus(
        self, photos: _Array, weights: _Array, captions: Sequence[Sequence[int]]
    ) -> _Array:
        """Return the consensus of C captions with the captions of K training photos, (C,)."""
        candidates = [_tokens(caption) for caption in captions]
        groups = [self._captions(photo) for photo in photos]
        references = References([*groups, candidates])
        # Each candidate is scored against each of the photos: K copies of all candidates.
        ngrams = [
            NgramCounts(
                (counts.caption + len(candidates) * np.arange(len(photos))[:, None]).ravel(),
                np.tile(counts.ngram, len(photos)),
                np.tile(counts.count, len(photos)),
            )
            for counts in references.ngrams.count(candidates)
        ]
        photo = np.repeat(np.arange(len(photos)), len(candidates))
        scores = CiderD(references, self._corpus).score_ngrams(ngrams, photo) / 100
        weights = weights * self.caption_counts[photos]
        means: _Array = weights @ scores.reshape(len(photos), -1) / weights.sum()
        return means

    def _captions(self, photo: int) -> list[Tokens]:
        """Return the captions of a training photo, as tokens."""
        captions = range(*self._first_captions[photo : photo + 2])
        return [_tokens(self.words[slice(*self._first_words[i : i + 2])]) for i in captions]


def fit_neighbours(
    captions: Mapping[str, Sequence[Sequence[int]]],
    read_features: Callable[[Iterable[str]], _Floats],
    detector: WordDetector,
) -> Neighbours:
    """Collect the training photos' directions and captions.

    Args:
        captions: image_id of each training photo to the ids of its captions.
        read_features: returns the features of photos, (n, D) or (n, P, D).
        detector: defines the directions.
    """
    image_ids = list(captions)

    def directions() -> Iterator[_Floats]:
        starts = range(0, len(image_ids), _CHUNK)
        for start in track(starts, "neighbours", len(starts), f"batches of {_CHUNK} photos"):
            yield detector.directions(read_features(image_ids[start : start + _CHUNK]))

    components = _principal_components(directions(), len(detector.mean))
    coordinates = np.concatenate([chunk @ components for chunk in directions()])
    groups = list(captions.values())
    references = References([[_tokens(ids) for ids in group] for group in groups])
    corpus = DocumentFrequencies.count(references)
    neighbours = Neighbours(
        components,
        coordinates.astype(np.float16).astype(np.float32),
        np.array([len(group) for group in groups]),
        references.lengths,
        np.array([word for group in groups for ids in group for word in ids], np.int64),
        corpus.keys,
        corpus.counts,
    )
    neighbours.check()
    return neighbours


def _principal_components(directions: Iterable[_Floats], size: int) -> _Floats:
    """Return the leading principal components of directions (n, D), as columns, (D, K).

    By orthogonal iteration (Golub and Van Loan, "Matrix computations", 8.2.4): all D components
    would take twenty times as long.
    """
    gram = np.zeros((size, size), np.float32)
    for chunk in directions:
        gram += chunk.T @ chunk
    count = min(_COMPONENTS, size)
    basis = np.random.default_rng(0).normal(size=(size, count)).astype(np.float32)
    for _ in range(_ITERATIONS):
        basis, _ = np.linalg.qr(gram @ basis)
    return basis


def _tokens(ids: Iterable[int]) -> Tokens:
    """Return ids as the tokens that n-grams are counted of."""
    return [str(word) for word in ids]


def _fingerprints(vocabulary: Vocabulary, detector: WordDetector) -> dict[str, str]:
    """Return the fingerprint of each input; its names are `_INPUTS`."""
    return {
        "vocabulary": vocabulary.fingerprint,
        "captions": vocabulary.captions_fingerprint,
        "detector": detector.digest,
    }


def _read(file: Any) -> Neighbours:
    version = read_integer_attribute(file, "format_version")
    if version != FORMAT_VERSION:
        raise ValueError(f"format version {version}, not {FORMAT_VERSION}")
    arrays = {name: _read_array(file[name], dtype) for name, dtype in _TYPES.items()}
    neighbours = Neighbours(**arrays)
    if neighbours.digest != read_text_attribute(file, "sha256"):
        raise ValueError("its numbers do not match their digest")
    neighbours.check()
    return neighbours


def _read_array(dataset: Any, dtype: str) -> _Array:
    check_dataset(dataset, np.dtype(dtype).kind)
    if dataset.dtype != dtype:
        raise ValueError(f"{dataset.name} is not of type {dtype}")
    array = np.asarray(dataset)
    return array.astype(np.float32) if dtype == "<f2" else array
