"""Pooling: from the maps of a convolutional network to the vectors of photos."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.backend import keras


def scales(network: Any) -> Iterator[Any]:
    """Yield the last maps that a network has of each size, the smallest and last ones first.

    Of sizes below that of the photo; each is about half of the next.
    Only maps that everything behind them is made of: the sums of residuals, not their terms.
    Those before the last are rectified, as networks that add first read their sums.

    Args:
        network: a `keras.Model` of layers that are called once, with one input and one output.

    Yields:
        `keras.KerasTensor`s (B, height, width, channels).
    """
    steps = network.operations
    made_by = {id(step.output): position for position, step in enumerate(steps)}
    side, needed = 0, len(steps)  # the earliest step that what is behind is made of
    for position in range(len(steps) - 1, 0, -1):
        step, maps = steps[position], steps[position].output
        padded = isinstance(step, keras.layers.ZeroPadding2D)
        if needed >= position and not padded and side < maps.shape[1] < network.input.shape[1]:
            yield keras.layers.ReLU(name=f"scale_{maps.shape[1]}")(maps) if side else maps
            side = maps.shape[1]
        # What a network within the network makes is known to that one alone.
        made = (made_by.get(id(t), 0) for t in keras.tree.flatten(step.input))
        needed = min(needed, *made)


def grid(maps: Sequence[Any]) -> Any:
    """Return a vector for each place of the first maps, (B, P, D), in reading order.

    Larger maps are averaged over the places that come to stand on one.
    """
    _, height, width, _ = maps[0].shape
    joined = _joined([maps[0], *(_shrunk(each, height) for each in maps[1:])], "scales")
    return keras.layers.Reshape((height * width, joined.shape[-1]), name="grid")(joined)


def average(maps: Sequence[Any], name: str = "pooled") -> Any:
    """Return the means of all places, (B, D), of one scale after the other."""
    means = [
        keras.layers.GlobalAveragePooling2D(name=f"{name}_{scale}")(each)
        for scale, each in enumerate(maps, 1)
    ]
    return _joined(means, name)


def quarters(maps: Sequence[Any]) -> Any:
    """Return the means of the quarters of photos, (B, 4, D), in reading order."""
    parts = [
        average([_cropped(each, bottom, right) for each in maps], f"quarter_{bottom:d}{right:d}")
        for bottom in (False, True)
        for right in (False, True)
    ]
    joined = _joined(parts, "quarters_in_a_row")
    return keras.layers.Reshape((len(parts), parts[0].shape[-1]), name="quarters")(joined)


def _cropped(maps: Any, bottom: bool, right: bool) -> Any:
    # What is cropped from an odd number of rows leaves the middle one to both halves.
    rows, columns = (
        (size // 2, 0) if last else (0, size // 2)
        for size, last in zip(maps.shape[1:3], (bottom, right), strict=True)
    )
    return keras.layers.Cropping2D((rows, columns))(maps)


def _shrunk(maps: Any, side: int) -> Any:
    """Return means of neighbouring places, `side` of them in a row."""
    before = maps.shape[1]
    step = round(before / side)
    if math.ceil(before / step) == side:
        return keras.layers.AveragePooling2D(step, padding="same")(maps)
    # Of a network that convolves without padding: its windows overlap.
    step = before // side
    window = before - (side - 1) * step
    return keras.layers.AveragePooling2D(window, step)(maps)


def _joined(parts: Sequence[Any], name: str) -> Any:
    return keras.layers.Concatenate(name=name)(parts) if len(parts) > 1 else parts[0]
