"""Attention maps of captions: the positions that the decoder attended to for each word."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from pipeline.captioner.generation.interfaces import Array, StepDecoder, SupportsAttentionMaps
from pipeline.text.vocabulary import PAD, START

AttentionMap = npt.NDArray[np.uint8]

MAX_WEIGHT = 255  # the value of the position with the largest weight for a word
_BATCH_SIZE = 64  # captions: the features of one photo on Xception's grid are 0.8 MB


def compute_attention_maps(
    decoder: StepDecoder, features: npt.NDArray[np.float32], captions: Sequence[Sequence[int]]
) -> list[AttentionMap | None]:
    """Compute where a decoder attended for each word of its captions.

    Args:
        decoder: the decoder.
        features: the features of each caption's photo, (N, P, D) or (N, D).
        captions: the word ids of each caption, without special tokens.

    Returns:
        For each caption its attention map, (n_words, P): the weight of each position for the
        word, scaled so that the largest is 255. None for a decoder without attention, or one that
        cannot return its weights.
    """
    if not isinstance(decoder, SupportsAttentionMaps):
        return [None] * len(captions)
    ids = _decoder_inputs(captions)
    maps: list[AttentionMap | None] = []
    for rows in _row_batches(len(captions)):
        batch_weights = decoder.attention_maps(features[rows], ids[rows])
        if batch_weights is None:
            return [None] * len(captions)
        maps += [
            _to_uint8(weights[: len(captions[row])])
            for row, weights in zip(rows, batch_weights, strict=True)
        ]
    return maps[: len(captions)]


def _decoder_inputs(captions: Sequence[Sequence[int]]) -> npt.NDArray[np.int32]:
    """Return the word before each word, (N, T): <start> and all words but the last."""
    longest = max(map(len, captions), default=0)
    ids = np.full((len(captions), max(longest, 1)), PAD, np.int32)
    ids[:, 0] = START
    for row, words in enumerate(captions):
        ids[row, 1 : len(words)] = words[:-1]
    return ids


def _row_batches(count: int) -> Iterator[npt.NDArray[np.int_]]:
    """Yield row numbers in batches of one size, so that only one shape is compiled.

    The last batch is filled up with rows from the start.
    """
    size = min(count, _BATCH_SIZE)
    for start in range(0, count, _BATCH_SIZE):
        yield np.arange(start, start + size) % count


def _to_uint8(weights: Array) -> AttentionMap:
    """Scale the weights (n_words, P) so that each word's largest is `MAX_WEIGHT`, and round."""
    largest = weights.max(axis=-1, keepdims=True)
    scaled: AttentionMap = np.rint(MAX_WEIGHT * (weights / largest)).astype(np.uint8)
    return scaled
