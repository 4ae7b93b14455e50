"""Batches: captions of like length, beside their photos' features."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.captions.vocabulary import END, PAD, START, Vocabulary
from pipeline.features.store import FeatureStore

Ids = npt.NDArray[np.int32]


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

        A caption of more than `max_words` words teaches its first words, without <end>.
        """
        self._store = store
        self._batch_size = batch_size
        self._image_ids = [image_id for image_id, _ in captions]
        self._sequences = [_sequence(vocabulary.encode(text), max_words) for _, text in captions]
        self._lengths = np.array([len(sequence) for sequence in self._sequences])

    def in_order(self) -> Iterator[Batch]:
        """Yield every caption once, the same way each time."""
        return map(self._batch, self._grouped(np.argsort(self._lengths, kind="stable")))

    def shuffled(self, seed: int, epoch: int) -> Iterator[Batch]:
        """Yield every caption once, in an order that follows from seed and epoch alone."""
        random = np.random.default_rng([seed, epoch])
        drawn = random.permutation(len(self._sequences))
        groups = self._grouped(drawn[np.argsort(self._lengths[drawn], kind="stable")])
        return (self._batch(groups[position]) for position in random.permutation(len(groups)))

    def _grouped(self, order: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        return [
            order[start : start + self._batch_size]
            for start in range(0, len(order), self._batch_size)
        ]

    def _batch(self, positions: npt.NDArray[Any]) -> Batch:
        padded = np.full((len(positions), int(self._lengths[positions].max())), PAD, np.int32)
        for row, position in enumerate(positions):
            padded[row, : self._lengths[position]] = self._sequences[position]
        inputs, targets = padded[:, :-1], padded[:, 1:]
        # The last id of a shorter sequence, <end>, has no successor to predict.
        inputs = np.where(targets == PAD, PAD, inputs)
        features = self._store.read(self._image_ids[position] for position in positions)
        return Batch(features, inputs, targets, int((targets != PAD).sum()))


def _sequence(words: list[int], max_words: int) -> Ids:
    end = [END] if len(words) <= max_words else []
    return np.array([START, *words[:max_words], *end], np.int32)
