"""Encoders: the convolutional networks of keras.applications, without their classifier."""

import hashlib
from collections.abc import Callable, Sequence
from itertools import islice
from types import ModuleType
from typing import Any

import numpy as np

from pipeline.backend import keras
from pipeline.errors import InputError
from pipeline.features.encoders import pooling
from pipeline.features.feature_spec import FORMAT_VERSION, EncoderConfig

_POOLED: dict[str, Callable[[Sequence[Any]], Any]] = {
    "average": pooling.average,
    "quarters": pooling.quarters,
    "grid": pooling.grid,
}


def make_encoder_config(
    name: str, input_size: int, weights_source: str, weights_sha256: str
) -> EncoderConfig:
    """Describe the network `name` as this Keras has it."""
    return EncoderConfig(
        format_version=FORMAT_VERSION,
        encoder=name,
        input_size=input_size,
        weights_source=weights_source,
        weights_sha256=weights_sha256,
        preprocessing=preprocessing_name(name),
        preprocessing_sha256=preprocessing_sha256(name),
    )


def default_input_size(name: str) -> int:
    """Return the input side, in pixels, that Keras gives the network `name`."""
    # Keras tells it only of a network with its classifier; of one class, to keep it small.
    network = _constructor(name)(weights=None, classes=1)
    return int(network.input_shape[1])


def build_encoder(name: str, input_size: int, pooled_by: str = "average", scales: int = 1) -> Any:
    """Build the network `name` with random weights; `weights.load` fills it.

    Args:
        name: a class of keras.applications.
        input_size: pixels a side.
        pooled_by: how maps become vectors, one of `encoding.POOLINGS`.
        scales: of the network's maps: 1 is the last ones alone, 2 those before their last
            halving too (Hariharan et al. 2015, "Hypercolumns").

    Returns:
        A `keras.Model`: preprocessed photos (B, input_size, input_size, 3) float32 to
        (B, D) or, of "quarters" and "grid", (B, P, D), P places in reading order.

    Raises:
        InputError: keras.applications has no such network, or not of that size, or it does
            not have so many scales.
    """
    constructor = _constructor(name)
    try:
        network = constructor(
            weights=None, include_top=False, input_shape=(input_size, input_size, 3)
        )
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"params.yaml: encoder.input_size {input_size} does not fit {name} ({reason}); "
            "null takes the network's own size"
        ) from None
    pooled = _POOLED[pooled_by](_scales(network, scales))
    return keras.Model(network.input, pooled, name=name.lower())


def _scales(network: Any, count: int) -> list[Any]:
    maps = list(islice(pooling.scales(network), count))
    if len(maps) < count:
        raise InputError(
            f"params.yaml: extract.scales is {count}, but {network.name} has only {len(maps)}: set "
            f"it to {len(maps)}"
        )
    return maps


def preprocessing_name(name: str) -> str:
    """Return the dotted name of the function that prepares pixels for the network `name`."""
    return f"{_module(name).__name__}.preprocess_input"


def with_preprocessing(network: Any, name: str) -> Any:
    """Put Keras' own `preprocess_input` of the network `name` before it.

    Returns:
        A `keras.Model`: RGB pixels (B, S, S, 3) uint8 to what `network` gives.
    """
    pixels = keras.Input(network.input_shape[1:], dtype="uint8", name="pixels")
    scaled = _module(name).preprocess_input(keras.ops.cast(pixels, "float32"))
    return keras.Model(pixels, network(scaled), name=f"{network.name}_of_pixels")


def preprocessing_sha256(name: str) -> str:
    """Digest what the preprocessing does to each of the 256 values in each channel."""
    ramp = np.repeat(np.arange(256, dtype=np.float32), 3).reshape(1, 16, 16, 3)
    scaled = np.asarray(_module(name).preprocess_input(ramp), dtype="<f4")
    return hashlib.sha256(scaled.tobytes()).hexdigest()


def _constructor(name: str) -> Callable[..., Any]:
    return getattr(_module(name), name)  # type: ignore[no-any-return]


def _module(name: str) -> ModuleType:
    """Find the public submodule of keras.applications that holds the network `name`."""
    modules = [m for m in vars(keras.applications).values() if isinstance(m, ModuleType)]
    networks = {
        network: module
        for module in modules
        for network in vars(module)
        if network[0].isupper() and callable(getattr(module, network))
    }
    if name not in networks:
        raise InputError(
            f"params.yaml: encoder.name {name!r} is no network of keras.applications; "
            f"it has {', '.join(sorted(networks))}"
        )
    return networks[name]
