"""The decoder `init_inject` as a plain PyTorch project has it, to compare training with.

A `DataLoader` draws captions in random order and pads each batch to its longest.
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
    """An LSTM over word vectors whose first state is made of the image."""

    def __init__(self, words: int, image: int, units: int, dropout: float) -> None:
        super().__init__()
        self.image = nn.Linear(image, units)
        self.embedding = nn.Embedding(words, units, padding_idx=_PAD)
        self.lstm = nn.LSTM(units, units, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.logits = nn.Linear(units, words)

    def forward(self, features: Any, ids: Any) -> Any:
        """Return logits (B, T, words) of features (B, image) and ids (B, T)."""
        hidden = torch.tanh(self.image(self.dropout(features)))[None]
        memory = (hidden, torch.zeros_like(hidden))
        output, _ = self.lstm(self.dropout(self.embedding(ids)), memory)
        return self.logits(self.dropout(output))


def make_epoch(
    sequences: Sequence[Sequence[int]],
    features: npt.NDArray[np.float32],
    words: int,
    units: int,
    dropout: float,
    batch_size: int,
) -> Callable[[], float]:
    """Return what trains one epoch and returns its seconds.

    Args:
        sequences: ids of the captions, <start> and <end> included.
        features: (N, D), for each caption its photo's.
        words: in the vocabulary.
        units: of the LSTM and the word vectors.
        dropout: of the image's and the words' vectors and before the logits.
        batch_size: captions.
    """
    torch.manual_seed(1)
    network = InitInject(words, features.shape[1], units, dropout)
    optimizer = torch.optim.Adam(network.parameters(), 5e-4)
    loss_of = nn.CrossEntropyLoss(ignore_index=_PAD)
    captions = [
        (torch.from_numpy(vector), torch.tensor(ids))
        for vector, ids in zip(features, sequences, strict=True)
    ]
    batches = torch.utils.data.DataLoader(captions, batch_size, shuffle=True, collate_fn=_collate)

    def epoch() -> float:
        start, total = time.perf_counter(), 0.0
        for images, ids in batches:
            optimizer.zero_grad()
            logits = network(images, ids[:, :-1])
            loss = loss_of(logits.flatten(0, 1), ids[:, 1:].flatten())
            loss.backward()
            optimizer.step()
            total += loss.item()
        return time.perf_counter() - start

    return epoch


def _collate(captions: list[tuple[Any, Any]]) -> tuple[Any, Any]:
    images, ids = zip(*captions, strict=True)
    return torch.stack(images), nn.utils.rnn.pad_sequence(ids, True, _PAD)
