"""Pooling: from the feature maps of a CNN to the vectors of photos."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pipeline.backend import keras

_MIN_RATIO = 1.5  # between the sides of two scales


def scale_maps(network: Any) -> list[Any]:
    """Return the network's last feature maps of each size, from the smallest to larger ones.

    Each size is about half of the next one; all are smaller than the input. Maps that every later
    layer depends on are preferred: the sums of residual blocks, not their terms. Where a size has
    none, because cells also read the output of the cell before the last one (NASNet), it is the
    last cell's output, a concatenation. All but the last maps are rectified, as networks with
    pre-activation do when they read their sums.

    Args:
        network: a `keras.Model` of layers that are called once, with one input and one output.

    Returns:
        `keras.KerasTensor`s (B, height, width, channels).
    """
    bottlenecks, cells = _last_maps(network)
    scales = [network.output]
    for side, maps in sorted((cells | bottlenecks).items()):
        # Convolutions without padding also give sizes of a few positions less.
        if _MIN_RATIO * scales[-1].shape[1] <= side < network.input.shape[1]:
            scales.append(keras.layers.ReLU(name=f"scale_{side}")(maps))
    return scales


def _last_maps(network: Any) -> tuple[dict[int, Any], dict[int, Any]]:
    """Return the last maps of each height that all later layers need, and the cells' outputs."""
    layers = network.operations
    producers = {id(layer.output): position for position, layer in enumerate(layers)}
    # Tensors inside a nested network are not among the outputs of this network's layers.
    inputs = [
        [producers.get(id(tensor), 0) for tensor in keras.tree.flatten(layer.input)]
        for layer in layers
    ]
    readers = Counter(position for positions in inputs for position in positions)
    bottlenecks: dict[int, Any] = {}
    cells: dict[int, Any] = {}
    # The earliest layer whose output a later layer (than the current position) uses.
    earliest_used = len(layers)
    for position in range(len(layers) - 1, 0, -1):
        layer, maps = layers[position], layers[position].output
        if earliest_used >= position and not isinstance(layer, keras.layers.ZeroPadding2D):
            bottlenecks.setdefault(maps.shape[1], maps)
        elif isinstance(layer, keras.layers.Concatenate) and readers[position] > 1:
            cells.setdefault(maps.shape[1], maps)
        earliest_used = min(earliest_used, *inputs[position])
    return bottlenecks, cells


def grid(maps: Sequence[Any]) -> Any:
    """Return a vector for each position of the first maps, (B, P, D), in reading order.

    Larger maps are average-pooled to the size of the first ones.
    """
    _, height, width, _ = maps[0].shape
    joined = _concatenate([maps[0], *(_shrink(scale, height) for scale in maps[1:])], "scales")
    return keras.layers.Reshape((height * width, joined.shape[-1]), name="grid")(joined)


def average(maps: Sequence[Any], name: str = "pooled") -> Any:
    """Return the means over all positions, (B, D), of all scales, concatenated."""
    means = [
        keras.layers.GlobalAveragePooling2D(name=f"{name}_{number}")(scale)
        for number, scale in enumerate(maps, 1)
    ]
    return _concatenate(means, name)


def quarters(maps: Sequence[Any]) -> Any:
    """Return the means over each quarter of the photos, (B, 4, D), in reading order."""
    parts = [
        average([_crop(scale, bottom, right) for scale in maps], f"quarter_{bottom:d}{right:d}")
        for bottom in (False, True)
        for right in (False, True)
    ]
    joined = _concatenate(parts, "quarters_in_a_row")
    return keras.layers.Reshape((len(parts), parts[0].shape[-1]), name="quarters")(joined)


def _crop(maps: Any, bottom: bool, right: bool) -> Any:
    # With an odd number of rows or columns, both halves keep the middle one.
    rows, columns = (
        (size // 2, 0) if second else (0, size // 2)
        for size, second in zip(maps.shape[1:3], (bottom, right), strict=True)
    )
    return keras.layers.Cropping2D((rows, columns))(maps)


def _shrink(maps: Any, side: int) -> Any:
    """Average-pool maps to `side` positions per row."""
    larger_side = maps.shape[1]
    step = round(larger_side / side)
    if math.ceil(larger_side / step) == side:
        return keras.layers.AveragePooling2D(step, padding="same")(maps)
    # The network's convolutions are not padded: the windows must overlap.
    step = larger_side // side
    window = larger_side - (side - 1) * step
    return keras.layers.AveragePooling2D(window, step)(maps)


def _concatenate(tensors: Sequence[Any], name: str) -> Any:
    return keras.layers.Concatenate(name=name)(tensors) if len(tensors) > 1 else tensors[0]
