"""Encoders: the convolutional networks of keras.applications, without their classifier."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.backend import keras
from pipeline.errors import InputError
from pipeline.features.photos import DECODING
from pipeline.files import fingerprint, read_json

FORMAT_VERSION = 1

Preprocessing = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Encoding:
    """Everything that decides a photo's vector: what the feature store calls provenance.

    Attributes:
        encoder: class name in keras.applications.
        input_size: pixels a side.
        weights_sha256: digest of the weights, see `weights.digest`.
        preprocessing: dotted name of the Keras function that scales pixels.
        preprocessing_sha256: digest of what that function does to each pixel value.
        decoding: how a file becomes pixels.
        pooling: "average", one vector a photo, or "grid", one a place.
        dtype: "float16" or "float32", as stored.
    """

    encoder: str
    input_size: int
    weights_sha256: str
    preprocessing: str
    preprocessing_sha256: str
    decoding: str
    pooling: str
    dtype: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all of the above: equal fingerprints, equal vectors."""
        return fingerprint(asdict(self))


@dataclass(frozen=True)
class EncoderDescription:
    """What encoder.json says: a network, its weights and how it wants its pixels."""

    format_version: int
    encoder: str
    input_size: int
    weights_source: str
    weights_sha256: str
    preprocessing: str
    preprocessing_sha256: str

    def encoding(self, pooling: str, dtype: str) -> Encoding:
        """Join the network with what is stored of its output."""
        return Encoding(
            encoder=self.encoder,
            input_size=self.input_size,
            weights_sha256=self.weights_sha256,
            preprocessing=self.preprocessing,
            preprocessing_sha256=self.preprocessing_sha256,
            decoding=DECODING,
            pooling=pooling,
            dtype=dtype,
        )


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


def read_encoder(path: Path) -> EncoderDescription:
    """Read encoder.json.

    Raises:
        InputError: absent, damaged, of another version, or of a Keras whose
            preprocessing of this network differs from the one at hand.
    """
    mend = "run `dvc repro encoder`"
    values = read_json(path, mend)
    if {key: type(value) for key, value in values.items()} != EncoderDescription.__annotations__:
        raise InputError(f"{path} is of another format version: {mend}")
    description = EncoderDescription(**values)
    if description.format_version != FORMAT_VERSION:
        raise InputError(f"{path} is of format version {description.format_version}: {mend}")
    if preprocessing_sha256(description.encoder) != description.preprocessing_sha256:
        raise InputError(
            f"{path}: {description.preprocessing} of the installed Keras scales pixels "
            f"differently: install requirements.lock, or {mend}"
        )
    return description


def default_input_size(name: str) -> int:
    """Return the input side, in pixels, that Keras gives the network `name`."""
    # Keras tells it only of a network with its classifier; of one class, to keep it small.
    network = _constructor(name)(weights=None, classes=1)
    return int(network.input_shape[1])


def build_encoder(name: str, input_size: int, pooling: str = "average") -> Any:
    """Build the network `name` with random weights; `weights.load` fills it.

    Returns:
        A `keras.Model`: preprocessed photos (B, input_size, input_size, 3) float32 to
        (B, D), or to (B, P, D) where `pooling` is "grid", P places in reading order.

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
    if pooling == "average":
        output = keras.layers.GlobalAveragePooling2D(name="pooled")(network.output)
    else:
        places = int(np.prod(network.output_shape[1:3]))
        output = keras.layers.Reshape((places, network.output_shape[3]), name="grid")(
            network.output
        )
    return keras.Model(network.input, output, name=name.lower())


def preprocessing_name(name: str) -> str:
    """Return the dotted name of the function that prepares pixels for the network `name`."""
    return f"{_module(name).__name__}.preprocess_input"


def preprocessing(name: str) -> Preprocessing:
    """Return Keras' own `preprocess_input` of the network `name`.

    It takes RGB pixels 0 to 255, (B, H, W, 3) float32, which it may change in place.
    """
    return _module(name).preprocess_input  # type: ignore[no-any-return]


def preprocessing_sha256(name: str) -> str:
    """Digest what the preprocessing does to each of the 256 values in each channel."""
    ramp = np.repeat(np.arange(256, dtype=np.float32), 3).reshape(1, 16, 16, 3)
    scaled = np.asarray(preprocessing(name)(ramp), dtype="<f4")
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
