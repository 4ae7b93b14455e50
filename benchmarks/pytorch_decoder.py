"""The default decoder as a plain PyTorch project trains it, for comparison.

A `DataLoader` draws batches of captions of similar length, as ours are, so that both have little
padding.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pipeline.captioner.model_config import DecoderConfig

_PAD = 0


class Merge(nn.Module):  # type: ignore[misc]  # mypy takes PyTorch as Any
    """An LSTM over word embeddings; the photo is added to its output."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        positions, size = config.feature_shape
        units, vocabulary_size = config.units, config.vocabulary_size
        self.residual = nn.Linear(size, config.spatial_residual_size, bias=False)
        self.image = nn.Linear(size + positions * config.spatial_residual_size, units)
        self.embedding = nn.Embedding(vocabulary_size, config.embedding_size, padding_idx=_PAD)
        self.lstm = nn.LSTM(config.embedding_size, units, batch_first=True)
        self.fusion = nn.Linear(units, units)
        self.dropout = nn.Dropout(config.dropout)
        self.output_dropout = nn.Dropout(config.output_dropout)
        self.logits = nn.Linear(units, vocabulary_size)

    def forward(self, features: Any, ids: Any) -> Any:
        """Return logits (B, T, vocabulary_size) for features (B, P, D) and ids (B, T)."""
        mean = features.mean(dim=1)
        mask = self.dropout(torch.ones_like(mean))[:, None]
        residual = self.residual((features - mean[:, None]) * mask).flatten(1)
        image = torch.relu(self.image(torch.cat([self.dropout(mean), residual], dim=1)))
        output, _ = self.lstm(self.dropout(self.embedding(ids)))
        fused = torch.relu(self.fusion(output + image[:, None]))
        return self.logits(self.output_dropout(fused))


def make_epoch(
    sequences: Sequence[Sequence[int]],
    features: npt.NDArray[np.float16],
    config: DecoderConfig,
    batch_size: int,
    label_smoothing: float,
    weight_decay: float,
) -> Callable[[], float]:
    """Return a function that trains one epoch and returns its seconds.

    Args:
        sequences: the captions' ids, <start> and <end> included.
        features: (N, P, D), for each caption those of its photo.
        config: the decoder's sizes.
        batch_size: number of captions.
        label_smoothing: share of the target probability spread over all words.
        weight_decay: of AdamW.
    """
    torch.manual_seed(1)
    network = Merge(config)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=weight_decay)
    cross_entropy = nn.CrossEntropyLoss(ignore_index=_PAD, label_smoothing=label_smoothing)
    captions = [
        (torch.from_numpy(vector), torch.tensor(ids))
        for vector, ids in zip(features, sequences, strict=True)
    ]
    order = np.argsort([len(ids) for ids in sequences], kind="stable")
    groups = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    random = np.random.default_rng(1)
    random.shuffle(groups)
    batches = torch.utils.data.DataLoader(captions, batch_sampler=groups, collate_fn=_collate)

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
    return torch.stack(images).float(), nn.utils.rnn.pad_sequence(ids, True, _PAD)
