"""Encoder networks: the CNNs of keras.applications without their classifiers."""

import hashlib
import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from pipeline.backend import has_accelerator, keras
from pipeline.errors import InputError
from pipeline.features.encoders import pooling
from pipeline.features.encoders.graph_digest import graph_sha256
from pipeline.features.feature_spec import FORMAT_VERSION, INPUT_SIZES, EncoderConfig
from pipeline.files import fingerprint
from pipeline.system.software import software

_EFFICIENTNETS = keras.applications.efficientnet
_IMAGENET_STD = (0.229, 0.224, 0.225)  # standard deviations of red, green and blue
_MOBILENET_V3_SIZE = 224  # pixels; the one network without a default that its class reports

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
        graphs_sha256=graph_digests(name, build_network(name, input_size)),
        software=software(accelerated=has_accelerator()),
    )


def graph_digests(name: str, network: Any) -> dict[str, list[str]]:
    """Digest the graphs from pixels to vectors: for each pooling, by the number of scales.

    Args:
        name: a class of keras.applications.
        network: what `build_network` returns for it.
    """
    pixels = keras.Input(network.input_shape[1:])
    preprocessing = with_preprocessing(keras.Model(pixels, keras.layers.Identity()(pixels)), name)
    scales = pooling.scale_maps(network)
    parts = [graph_sha256(preprocessing), graph_sha256(keras.Model(network.input, scales))]
    return {
        pooling_name: [
            fingerprint([*parts, graph_sha256(_pooling_alone(pooling_name, scales[:count]))])
            for count in range(1, len(scales) + 1)
        ]
        for pooling_name in _POOLINGS
    }


def _pooling_alone(pooling_name: str, scales: Sequence[Any]) -> Any:
    maps = [keras.Input(scale.shape[1:]) for scale in scales]
    return keras.Model(maps, _POOLINGS[pooling_name](maps))


def default_input_size(name: str) -> int:
    """Return the default side of the network's input, in pixels."""
    # Only networks with a classifier have a default; a single class keeps that one small.
    network = _constructor(name)(weights=None, classes=1)
    return int(network.input_shape[1] or _MOBILENET_V3_SIZE)


def build_encoder(
    name: str, input_size: int, pooling_name: str = "average", scales: int = 1
) -> Any:
    """Build the network `name` with random weights, and pool its feature maps.

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
    return pool_maps(name, build_network(name, input_size), pooling_name, scales)


def build_network(name: str, input_size: int) -> Any:
    """Build the network `name` as Keras does for its official weights, with random weights.

    Returns:
        A `keras.Model`: preprocessed photos (B, input_size, input_size, 3) float32 to the last
        feature maps (B, height, width, channels).

    Raises:
        InputError: see `build_encoder`.
    """
    constructor = _constructor(name)
    if input_size > max(INPUT_SIZES):
        raise InputError(
            f"params.yaml: encoder.input_size {input_size} is more than {max(INPUT_SIZES)}; "
            "null is the network's default size"
        )
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
    return _with_official_scaling(network) if hasattr(_EFFICIENTNETS, name) else network


def _with_official_scaling(network: Any) -> Any:
    """Add the layer that Keras gives EfficientNetB0 to B7 only with weights="imagenet".

    The official weights were trained on pixels divided by the variance of ImageNet's colours,
    while `Normalization` divides by its root. The layer has no weights: without it, the official
    weights load, and the features are wrong. Source: keras/src/applications/efficientnet.py.
    """

    def call(layer: Any, *inputs: Any, **options: Any) -> Any:
        output = layer(*inputs, **options)
        if not isinstance(layer, keras.layers.Normalization):
            return output
        return keras.layers.Rescaling([1 / math.sqrt(std) for std in _IMAGENET_STD])(output)

    return keras.models.clone_model(network, call_function=call)


def pool_maps(name: str, network: Any, pooling_name: str, scales: int) -> Any:
    """Pool the feature maps of what `build_network` returns; see `build_encoder`."""
    pooled = _POOLINGS[pooling_name](_last_scales(network, scales))
    return keras.Model(network.input, pooled, name=name.lower())


def _last_scales(network: Any, count: int) -> list[Any]:
    maps = pooling.scale_maps(network)
    if len(maps) < count:
        raise InputError(
            f"params.yaml: extract.scales is {count}, but {network.name} has only {len(maps)}: set "
            f"it to {len(maps)}"
        )
    return maps[:count]


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
    module = _module(name)
    return getattr(module if hasattr(module, name) else keras.applications, name)  # type: ignore[no-any-return]


def _module(name: str) -> ModuleType:
    """Return the public submodule of keras.applications that is about the network `name`."""
    modules = [m for m in vars(keras.applications).values() if isinstance(m, ModuleType)]
    networks = {
        network: module
        for module in modules
        for network in vars(module)
        if network[0].isupper() and callable(getattr(module, network))
    }
    # Of MobileNetV3, the submodule has the preprocessing only.
    for network, constructor in vars(keras.applications).items():
        if network[0].isupper() and network not in networks:
            submodule = constructor.__module__.rpartition(".")[2]
            networks[network] = getattr(keras.applications, submodule)
    if name not in networks:
        raise InputError(
            f"params.yaml: encoder.name {name!r} is not a network of keras.applications; "
            f"it has {', '.join(sorted(networks))}"
        )
    return networks[name]
