"""Tracing: the graphs that TensorFlow makes of a network's functions, the same in every process.

`tf.function` makes a graph of its own for the first shapes that it sees, with sizes as constants,
and one for all other shapes. The two may differ in the last bits, and a resumed training starts
with another batch than the one it continues. So before the first batch, every function sees two
tiny batches that differ in all their sizes: from then on all batches run in the general graph.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.backend import keras
from pipeline.captioner.decoders.decoder import Decoder
from pipeline.text.vocabulary import END, START

_SIZES = (1, 2)


def trace_network(decoder: Decoder, *functions: Callable[[list[Any], Any, Any], Any]) -> None:
    """Trace functions of the decoder's network for batches of any size.

    Args:
        decoder: the decoder; functions that train change its weights.
        functions: called with inputs [features (B, ...), ids (B, T)], targets (B, T) and sample
            weights (B, T).
    """
    if keras.config.backend() != "tensorflow":
        return
    for size in _SIZES:
        features = np.zeros((size, *decoder.config.feature_shape), np.float32)
        ids = np.full((size, size), START, np.int32)
        weights = np.ones((size, size), np.float32)
        for function in functions:
            function([features, ids], np.full_like(ids, END), weights)


def trace_search(decoder: Decoder) -> None:
    """Trace the functions of a decoder's search for batches of any size."""
    if keras.config.backend() != "tensorflow":
        return
    for size in _SIZES:
        state = decoder.begin(np.zeros((size, *decoder.config.feature_shape), np.float32))
        photos = np.arange(size)
        decoder.advance(np.full((size, 1), START, np.int32), photos, photos, state)
