"""Encoder networks: the CNNs of keras.applications without their classifiers."""

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

_POOLINGS: dict[str, Callable[[Sequence[Any]], Any]] = {
    "average": pooling.average,
    "quarters": pooling.quarters,
    "grid": pooling.grid,
}


def make_encoder_config(
    name: str, input_size: int, weights_source: str, weights_sha256: str
) -> EncoderConfig:
    """Describe the network `name` of the installed Keras."""
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
    """Return the default side of the network's input, in pixels."""
    # Only networks with a classifier have a default; a single class keeps that one small.
    network = _constructor(name)(weights=None, classes=1)
    return int(network.input_shape[1])


def build_encoder(
    name: str, input_size: int, pooling_name: str = "average", scales: int = 1
) -> Any:
    """Build the network `name` with random weights.

    Args:
        name: a class of keras.applications.
        input_size: side of the input, in pixels.
        pooling_name: how feature maps become vectors, one of `feature_spec.POOLINGS`.
        scales: number of feature-map resolutions to pool, from the last backwards (Hariharan
            et al. 2015, "Hypercolumns").

    Returns:
        A `keras.Model`: preprocessed photos (B, input_size, input_size, 3) float32 to (B, D)
        or, with "quarters" and "grid", (B, P, D): P positions in reading order.

    Raises:
        InputError: keras.applications has no such network, or the network does not work with
            this input size, or it has fewer scales.
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
            "null is the network's default size"
        ) from None
    pooled = _POOLINGS[pooling_name](_last_scales(network, scales))
    return keras.Model(network.input, pooled, name=name.lower())


def _last_scales(network: Any, count: int) -> list[Any]:
    maps = list(islice(pooling.scale_maps(network), count))
    if len(maps) < count:
        raise InputError(
            f"params.yaml: extract.scales is {count}, but {network.name} has only {len(maps)}: set "
            f"it to {len(maps)}"
        )
    return maps


def preprocessing_name(name: str) -> str:
    """Return the dotted name of the preprocessing function of the network `name`."""
    return f"{_module(name).__name__}.preprocess_input"


def with_preprocessing(network: Any, name: str) -> Any:
    """Prepend Keras' own preprocessing for the network `name` to `network`.

    Returns:
        A `keras.Model`: RGB pixels (B, S, S, 3) uint8 to the output of `network`.
    """
    pixels = keras.Input(network.input_shape[1:], dtype="uint8", name="pixels")
    scaled = _module(name).preprocess_input(keras.ops.cast(pixels, "float32"))
    return keras.Model(pixels, network(scaled), name=f"{network.name}_of_pixels")


def preprocessing_sha256(name: str) -> str:
    """Digest the output of the preprocessing for each of the 256 values in each channel."""
    ramp = np.repeat(np.arange(256, dtype=np.float32), 3).reshape(1, 16, 16, 3)
    scaled = np.asarray(_module(name).preprocess_input(ramp), dtype="<f4")
    return hashlib.sha256(scaled.tobytes()).hexdigest()


def _constructor(name: str) -> Callable[..., Any]:
    return getattr(_module(name), name)  # type: ignore[no-any-return]


def _module(name: str) -> ModuleType:
    """Return the public submodule of keras.applications that has the network `name`."""
    modules = [m for m in vars(keras.applications).values() if isinstance(m, ModuleType)]
    networks = {
        network: module
        for module in modules
        for network in vars(module)
        if network[0].isupper() and callable(getattr(module, network))
    }
    if name not in networks:
        raise InputError(
            f"params.yaml: encoder.name {name!r} is not a network of keras.applications; "
            f"it has {', '.join(sorted(networks))}"
        )
    return networks[name]
