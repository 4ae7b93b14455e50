"""Encodings: what decides a photo's vector, as data; nothing here needs Keras."""

from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.errors import InputError
from pipeline.features.photos import DECODING
from pipeline.features.views import VIEWS
from pipeline.files import fingerprint, read_json

FORMAT_VERSION = 1
POOLINGS = ("average", "quarters", "grid")


@dataclass(frozen=True)
class FeatureSpec:
    """Everything that decides a photo's vector: what the feature store calls provenance.

    Attributes:
        encoder: class name in keras.applications.
        input_size: pixels a side.
        weights_sha256: digest of the weights, see `weights.digest`.
        preprocessing: dotted name of the Keras function that scales pixels.
        preprocessing_sha256: digest of what that function does to each pixel value.
        decoding: how a file becomes pixels.
        views: which views of a photo have vectors, a key of `views.VIEWS`.
        pooling: "average", one vector a photo; "quarters", one of each quarter; or "grid", one of
            each place that the network's maps have.
        scales: how many of the network's resolutions it tells of: 1 is the last alone.
        dtype: "float16" or "float32", as stored.
    """

    encoder: str
    input_size: int
    weights_sha256: str
    preprocessing: str
    preprocessing_sha256: str
    decoding: str
    views: str
    pooling: str
    scales: int
    dtype: str

    @property
    def known(self) -> bool:
        """Whether there are such vectors: what is read from a file may say anything."""
        scales = isinstance(self.scales, int) and self.scales >= 1
        kinds = self.dtype in ("float16", "float32") and self.pooling in POOLINGS
        return scales and kinds and self.views in list(VIEWS)

    @property
    def view_count(self) -> int:
        """How many views of a photo have vectors."""
        return len(VIEWS[self.views])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all of the above: equal fingerprints, equal vectors."""
        return fingerprint(asdict(self))


@dataclass(frozen=True)
class EncoderConfig:
    """What encoder.json says: a network, its weights and how it wants its pixels."""

    format_version: int
    encoder: str
    input_size: int
    weights_source: str
    weights_sha256: str
    preprocessing: str
    preprocessing_sha256: str

    def encoding(self, views: str, pooling: str, scales: int, dtype: str) -> FeatureSpec:
        """Join the network with what is stored of its output."""
        return FeatureSpec(
            encoder=self.encoder,
            input_size=self.input_size,
            weights_sha256=self.weights_sha256,
            preprocessing=self.preprocessing,
            preprocessing_sha256=self.preprocessing_sha256,
            decoding=DECODING,
            views=views,
            pooling=pooling,
            scales=scales,
            dtype=dtype,
        )


def read_encoder_config(path: Path) -> EncoderConfig:
    """Read encoder.json.

    Raises:
        InputError: absent, damaged or of another version.
    """
    fix = "run `dvc repro encoder`"
    values = read_json(path, fix)
    if {key: type(value) for key, value in values.items()} != EncoderConfig.__annotations__:
        raise InputError(f"{path} is of another format version: {fix}")
    description = EncoderConfig(**values)
    if description.format_version != FORMAT_VERSION:
        raise InputError(f"{path} is of format version {description.format_version}: {fix}")
    return description
