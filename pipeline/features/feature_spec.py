"""Feature specifications: everything that decides a photo's vector. Imports no Keras."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.features.decoding.probe import decoding_sha256
from pipeline.features.decoding.views import VIEWS
from pipeline.files import fingerprint, read_json, record_from_json

FORMAT_VERSION = 2
POOLINGS = ("average", "quarters", "grid")
# What `photos.decode_photo` does; change it when the pixels change.
DECODING = "first frame, EXIF rotation, transparency on white, RGB, stretched to a square (bicubic)"
INPUT_SIZES = range(32, 4097)  # as params.yaml allows


@dataclass(frozen=True)
class FeatureSpec:
    """Everything that decides a photo's vector. Features of different specs are incompatible.

    Attributes:
        encoder: class name in keras.applications.
        input_size: side of the network's input, in pixels.
        weights_sha256: digest of the weights, see `keras_weights.digest`.
        preprocessing: dotted name of the Keras function that scales pixels.
        preprocessing_sha256: digest of that function's output for every pixel value.
        graph_sha256: digest of the graph from pixels to vectors, without the weights, see
            `networks.graph_digests`.
        decoding: how a file is decoded to pixels, see `DECODING`.
        decoding_sha256: digest of drawn photos' pixels, see `decoding.probe`.
        views: the views of a photo that are encoded, a key of `views.VIEWS`.
        pooling: "average": one vector per photo; "quarters": one per quarter of the photo;
            "grid": one per position of the network's feature maps.
        scales: number of feature-map resolutions to pool, from the last backwards.
        dtype: number type of the stored vectors, "float16" or "float32".
    """

    encoder: str
    input_size: int
    weights_sha256: str
    preprocessing: str
    preprocessing_sha256: str
    graph_sha256: str
    decoding: str
    decoding_sha256: str
    views: str
    pooling: str
    scales: int
    dtype: str

    @property
    def is_valid(self) -> bool:
        """Whether such vectors can exist: a spec read from a file may hold any values."""
        valid_scales = isinstance(self.scales, int) and self.scales >= 1
        valid_dtype = self.dtype in ("float16", "float32")
        # A list: the value from the file may be unhashable.
        valid_names = self.pooling in POOLINGS and self.views in list(VIEWS)
        return valid_scales and valid_dtype and valid_names and self.input_size in INPUT_SIZES

    @property
    def view_count(self) -> int:
        """The number of views of each photo that are encoded."""
        return len(VIEWS[self.views])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all fields: specs with equal fingerprints give equal vectors."""
        return fingerprint(asdict(self))


@dataclass(frozen=True)
class EncoderConfig:
    """The contents of encoder.json: a network, its weights and its preprocessing.

    Attributes:
        format_version: format version of encoder.json.
        encoder: see `FeatureSpec`.
        input_size: see `FeatureSpec`.
        weights_source: where the weights came from.
        weights_sha256: see `FeatureSpec`.
        preprocessing: see `FeatureSpec`.
        preprocessing_sha256: see `FeatureSpec`.
        graphs_sha256: the `FeatureSpec.graph_sha256` of each pooling, by the number of scales.
        software: what wrote the file, see `software.software`.
    """

    format_version: int
    encoder: str
    input_size: int
    weights_source: str
    weights_sha256: str
    preprocessing: str
    preprocessing_sha256: str
    graphs_sha256: dict[str, list[str]]
    software: dict[str, str]

    def feature_spec(self, views: str, pooling: str, scales: int, dtype: str) -> FeatureSpec:
        """Return the spec of this encoder's features with the given options of `extract`.

        Raises:
            InputError: the network has fewer scales.
        """
        graphs = self.graphs_sha256[pooling]
        if scales > len(graphs):
            raise InputError(
                f"params.yaml: extract.scales is {scales}, but {self.encoder} has only "
                f"{len(graphs)}: set it to {len(graphs)}"
            )
        return FeatureSpec(
            encoder=self.encoder,
            input_size=self.input_size,
            weights_sha256=self.weights_sha256,
            preprocessing=self.preprocessing,
            preprocessing_sha256=self.preprocessing_sha256,
            graph_sha256=graphs[scales - 1],
            decoding=DECODING,
            decoding_sha256=decoding_sha256(views),
            views=views,
            pooling=pooling,
            scales=scales,
            dtype=dtype,
        )


def read_encoder_config(path: Path) -> EncoderConfig:
    """Read encoder.json.

    Raises:
        InputError: the file is absent, damaged or of another version.
    """
    fix = "run `dvc repro encoder`"
    values = read_json(path, fix)
    version = values.get("format_version")
    if isinstance(version, int) and version != FORMAT_VERSION:
        raise InputError(f"{path} has format version {version}: {fix}")
    try:
        config = record_from_json(EncoderConfig, values)
    except ValueError:
        raise InputError(f"{path} has another format version: {fix}") from None
    if config.input_size not in INPUT_SIZES:
        sizes = f"{min(INPUT_SIZES)} to {max(INPUT_SIZES)}"
        raise InputError(f"{path}: input_size is {config.input_size}, not {sizes}: {fix}")
    if not _are_digests(config.graphs_sha256):
        raise InputError(f"{path}: graphs_sha256 does not have lists for every pooling: {fix}")
    return config


def read_feature_spec(values: Any) -> FeatureSpec:
    """Make a feature spec from the JSON object that describes it.

    Raises:
        ValueError: it describes no vectors that can exist.
    """
    spec = record_from_json(FeatureSpec, values)
    if not spec.is_valid:
        raise ValueError("its feature_spec is invalid")
    return spec


def _are_digests(graphs: Mapping[str, Any]) -> bool:
    """Whether there is a digest for each pooling and number of scales."""
    return set(graphs) == set(POOLINGS) and all(
        isinstance(digests, list) and digests and all(isinstance(d, str) for d in digests)
        for digests in graphs.values()
    )
