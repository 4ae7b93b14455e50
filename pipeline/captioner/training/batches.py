"""Batches: captions of like length, beside their photos' features."""

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
Read = Callable[[Iterable[str]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Batch:
    """Whole sequences for teacher forcing.

    Attributes:
        features: (B, D) or (B, P, D).
        inputs: (B, T) ids: <start> and the words, padded with <pad> on the right.
        targets: (B, T) ids: the words and <end>, each the successor of its input.
        words: targets that are not <pad>.
    """

    features: npt.NDArray[np.float32]
    inputs: Ids
    targets: Ids
    words: int


class Batches:
    """The captions of a split, ready to be drawn batch by batch.

    Padding is little because a batch's captions are of like length; which of the equally
    long ones stand together, and the batches' order, is drawn anew for each epoch.
    Features are read from the store batch by batch and never held together.
    """

    def __init__(
        self,
        captions: Sequence[tuple[str, str]],
        store: FeatureStore,
        vocabulary: Vocabulary,
        batch_size: int,
        max_words: int,
    ) -> None:
        """Encode (image_id, clean text) pairs; every id has to be in the store.

        Attributes set:
            sequences: of ids, <start> and <end> included, in the order of `captions`.

        A caption of more than `max_words` words teaches its first words, without <end>.
        """
        self._store = store
        self._batch_size = batch_size
        self._image_ids = [image_id for image_id, _ in captions]
        self.sequences = [_sequence(vocabulary.encode(text), max_words) for _, text in captions]
        self._lengths = np.array([len(sequence) for sequence in self.sequences])

    def __len__(self) -> int:
        """How many batches there are."""
        return math.ceil(len(self.sequences) / self._batch_size)

    def word_counts(self, size: int) -> npt.NDArray[np.int64]:
        """Return how often each id below `size` is to be told, <end> among them."""
        return np.bincount(np.concatenate([s[1:] for s in self.sequences]), minlength=size)

    def in_order(self) -> Iterator[Batch]:
        """Yield every caption once, the same way each time."""
        order = np.argsort(self._lengths, kind="stable")
        return (self._batch(group, self._store.read) for group in self._grouped(order))

    def shuffled(self, seed: int, epoch: int) -> Iterator[Batch]:
        """Yield every caption once, in an order that follows from seed and epoch alone.

        Beside each caption stands one view of its photo, drawn as the order is.
        """
        random = np.random.default_rng([seed, epoch])
        drawn = random.permutation(len(self.sequences))
        groups = self._grouped(drawn[np.argsort(self._lengths[drawn], kind="stable")])
        read = partial(self._store.sample_views, random=random)
        for position in random.permutation(len(groups)):
            yield self._batch(groups[position], read)

    def _grouped(self, order: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        return [
            order[start : start + self._batch_size]
            for start in range(0, len(order), self._batch_size)
        ]

    def _batch(self, positions: npt.NDArray[Any], read: Read) -> Batch:
        inputs, targets = teacher_forcing([self.sequences[p] for p in positions])
        words = int((targets != PAD).sum())
        return Batch(read(self._image_ids[p] for p in positions), inputs, targets, words)


def teacher_forcing(sequences: Sequence[Ids]) -> tuple[Ids, Ids]:
    """Pad sequences of ids to inputs and their targets, each (B, T), see `Batch`."""
    padded = np.full((len(sequences), max(map(len, sequences))), PAD, np.int32)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = sequence
    inputs, targets = padded[:, :-1], padded[:, 1:]
    # The last id of a shorter sequence, <end>, has no successor to predict.
    return np.where(targets == PAD, PAD, inputs), targets


def _sequence(words: list[int], max_words: int) -> Ids:
    end = [END] if len(words) <= max_words else []
    return np.array([START, *words[:max_words], *end], np.int32)
