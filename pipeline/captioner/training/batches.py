"""Batches: captions of similar length with their photos' features."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.features.store import FeatureStore
from pipeline.text.vocabulary import END, PAD, START, Vocabulary

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Batch:
    """Whole sequences for teacher forcing.

    Attributes:
        features: (B, D) or (B, P, D).
        inputs: (B, T) ids: <start> and the words, padded with <pad> on the right.
        targets: (B, T) ids: the words and <end>; each target is the successor of its input.
        word_count: number of targets that are not <pad>.
    """

    features: npt.NDArray[np.float32]
    inputs: Ids
    targets: Ids
    word_count: int


class Batches:
    """The captions of a split, in batches.

    The captions of a batch have similar lengths, so there is little padding. Features are read
    from the store batch by batch and never held in memory all at once.

    Attributes:
        sequences: the captions' ids with <start> and <end>, in the order of `captions`.
    """

    def __init__(
        self,
        captions: Sequence[tuple[str, str]],
        store: FeatureStore,
        vocabulary: Vocabulary,
        batch_size: int,
        max_words: int,
    ) -> None:
        """Encode the captions.

        Args:
            captions: (image_id, clean text) pairs; the store must have every id.
            store: the photos' features.
            vocabulary: the captions' vocabulary.
            batch_size: captions in a batch.
            max_words: a longer caption is cut to this many words, without <end>.
        """
        self._store = store
        self._batch_size = batch_size
        self._image_ids = [image_id for image_id, _ in captions]
        self.sequences = [_to_sequence(vocabulary.encode(text), max_words) for _, text in captions]
        self._lengths = np.array([len(sequence) for sequence in self.sequences])

    def __len__(self) -> int:
        """The number of batches."""
        return math.ceil(len(self.sequences) / self._batch_size)

    def target_counts(self, vocabulary_size: int) -> npt.NDArray[np.int64]:
        """Count how often each id, <end> included, is a target; returns (vocabulary_size,)."""
        targets = np.concatenate([sequence[1:] for sequence in self.sequences])
        return np.bincount(targets, minlength=vocabulary_size)

    def target_share(self, word: int) -> float:
        """Return the share of an id in all targets."""
        counts = self.target_counts(word + 1)
        return float(counts[word] / counts.sum())

    def eval_batches(self) -> Iterator[Batch]:
        """Yield every caption once, by length: the same batches each time."""
        order = np.argsort(self._lengths, kind="stable")
        return (self._batch(positions, self._store.read) for positions in self._split(order))

    def train_batches(self, seed: int, epoch: int) -> Iterator[Batch]:
        """Yield every caption once, in an order that depends on seed and epoch alone.

        Each epoch draws which captions of equal length share a batch, the order of the batches,
        and a view of the photo for each caption.
        """
        random = np.random.default_rng([seed, epoch])
        shuffled = random.permutation(len(self.sequences))
        batches = self._split(shuffled[np.argsort(self._lengths[shuffled], kind="stable")])
        read = partial(self._store.sample_views, random=random)
        for number in random.permutation(len(batches)):
            yield self._batch(batches[number], read)

    def _split(self, order: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        """Split caption positions into batches."""
        return [
            order[start : start + self._batch_size]
            for start in range(0, len(order), self._batch_size)
        ]

    def _batch(
        self,
        positions: npt.NDArray[Any],
        read: Callable[[Iterable[str]], npt.NDArray[np.float32]],
    ) -> Batch:
        inputs, targets = teacher_forcing([self.sequences[p] for p in positions])
        word_count = int((targets != PAD).sum())
        return Batch(read(self._image_ids[p] for p in positions), inputs, targets, word_count)


def teacher_forcing(sequences: Sequence[Ids]) -> tuple[Ids, Ids]:
    """Pad sequences of ids to inputs and their targets, each (B, T), see `Batch`."""
    padded = np.full((len(sequences), max(map(len, sequences))), PAD, np.int32)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = sequence
    inputs, targets = padded[:, :-1], padded[:, 1:]
    # The last id of a shorter sequence, <end>, has no successor to predict.
    return np.where(targets == PAD, PAD, inputs), targets


def _to_sequence(words: list[int], max_words: int) -> Ids:
    end = [END] if len(words) <= max_words else []
    return np.array([START, *words[:max_words], *end], np.int32)
