"""Encoders: the convolutional networks of keras.applications, without their classifier."""

import hashlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from pipeline.backend import keras
from pipeline.errors import InputError
from pipeline.features.encoding import FORMAT_VERSION, EncoderDescription


def describe_encoder(
    name: str, input_size: int, weights_source: str, weights_sha256: str
) -> EncoderDescription:
    """Describe the network `name` as this Keras has it."""
    return EncoderDescription(
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


def build_encoder(name: str, input_size: int, pooling: str = "average") -> Any:
    """Build the network `name` with random weights; `weights.load` fills it.

    Returns:
        A `keras.Model`: preprocessed photos (B, input_size, input_size, 3) float32 to
        (B, D), or to (B, P, D) where `pooling` is "grid", P places in reading order. Where it
        is "pyramid", D is five times as long: the mean of all places, and of each quarter of
        the photo in reading order (Lazebnik et al. 2006, "Beyond bags of features", two levels).

    Raises:
        InputError: keras.applications has no such network, or not of that size.
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
    return keras.Model(network.input, _pooled(network.output, pooling), name=name.lower())


def _pooled(maps: Any, pooling: str) -> Any:
    """Return the vectors of photos from the network's last maps, (B, height, width, D)."""
    layers = keras.layers
    _, height, width, channels = maps.shape
    if pooling == "grid":
        return layers.Reshape((height * width, channels), name="grid")(maps)
    whole = layers.GlobalAveragePooling2D(name="pooled")(maps)
    if pooling == "average":
        return whole
    # What is cropped from an odd number of rows leaves the middle one to both halves.
    halves = [[(0, size // 2), (size // 2, 0)] for size in (height, width)]
    quarters = [
        layers.GlobalAveragePooling2D(name=f"{vertical}_{side}")(
            layers.Cropping2D((rows, columns), name=f"{vertical}_{side}_quarter")(maps)
        )
        for vertical, rows in zip(("top", "bottom"), halves[0], strict=True)
        for side, columns in zip(("left", "right"), halves[1], strict=True)
    ]
    return layers.Concatenate(name="pyramid")([whole, *quarters])


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
