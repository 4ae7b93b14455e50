"""The decoder `init_inject` as a plain PyTorch project trains it, for comparison.

A `DataLoader` draws captions in random order and pads each batch to its longest caption.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

_PAD = 0


class InitInject(nn.Module):  # type: ignore[misc]  # mypy takes PyTorch as Any
    """An LSTM over word embeddings whose initial state is computed from the image."""

    def __init__(self, vocabulary_size: int, image_size: int, units: int, dropout: float) -> None:
        super().__init__()
        self.image = nn.Linear(image_size, units)
        self.embedding = nn.Embedding(vocabulary_size, units, padding_idx=_PAD)
        self.lstm = nn.LSTM(units, units, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.logits = nn.Linear(units, vocabulary_size)

    def forward(self, features: Any, ids: Any) -> Any:
        """Return logits (B, T, vocabulary_size) for features (B, image_size) and ids (B, T)."""
        hidden = torch.tanh(self.image(self.dropout(features)))[None]
        state = (hidden, torch.zeros_like(hidden))
        output, _ = self.lstm(self.dropout(self.embedding(ids)), state)
        return self.logits(self.dropout(output))


def make_epoch(
    sequences: Sequence[Sequence[int]],
    features: npt.NDArray[np.float32],
    vocabulary_size: int,
    units: int,
    dropout: float,
    batch_size: int,
) -> Callable[[], float]:
    """Return a function that trains one epoch and returns its seconds.

    Args:
        sequences: the captions' ids, <start> and <end> included.
        features: (N, D), for each caption those of its photo.
        vocabulary_size: number of words.
        units: size of the LSTM and of the word embeddings.
        dropout: dropout rate of the image features, of the word embeddings, and before the logits.
        batch_size: number of captions.
    """
    torch.manual_seed(1)
    network = InitInject(vocabulary_size, features.shape[1], units, dropout)
    optimizer = torch.optim.Adam(network.parameters(), 5e-4)
    cross_entropy = nn.CrossEntropyLoss(ignore_index=_PAD)
    captions = [
        (torch.from_numpy(vector), torch.tensor(ids))
        for vector, ids in zip(features, sequences, strict=True)
    ]
    batches = torch.utils.data.DataLoader(captions, batch_size, shuffle=True, collate_fn=_collate)

    def train_epoch() -> float:
        start, total = time.perf_counter(), 0.0
        for images, ids in batches:
            optimizer.zero_grad()
            logits = network(images, ids[:, :-1])
            loss = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
            loss.backward()
            optimizer.step()
            total += loss.item()
        return time.perf_counter() - start

    return train_epoch


def _collate(captions: list[tuple[Any, Any]]) -> tuple[Any, Any]:
    images, ids = zip(*captions, strict=True)
    return torch.stack(images), nn.utils.rnn.pad_sequence(ids, True, _PAD)
