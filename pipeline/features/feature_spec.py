"""Feature specifications: everything that decides a photo's vector. Imports no Keras."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.features.decoding_probe import decoding_sha256
from pipeline.features.photos import DECODING
from pipeline.features.views import VIEWS
from pipeline.files import fingerprint, read_json

FORMAT_VERSION = 2
POOLINGS = ("average", "quarters", "grid")
MAX_INPUT_SIZE = 4096  # pixels, as in params.yaml; the networks' own sizes end at 600
_FIX = "run `dvc repro encoder`"


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
        decoding: how a file is decoded to pixels, see `photos.DECODING`.
        decoding_sha256: digest of drawn photos' pixels, see `decoding_probe`.
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
        return (
            valid_scales and valid_dtype and self.pooling in POOLINGS and self.views in list(VIEWS)
        )

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
    graphs_sha256: Mapping[str, Sequence[str]]
    software: Mapping[str, str]

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
    values = read_json(path, _FIX)
    version = values.get("format_version")
    if isinstance(version, int) and version != FORMAT_VERSION:
        raise InputError(f"{path} has format version {version}: {_FIX}")
    types: dict[str, type] = dict.fromkeys(EncoderConfig.__annotations__, str)
    types |= {"format_version": int, "input_size": int, "graphs_sha256": dict, "software": dict}
    if {key: type(value) for key, value in values.items()} != types:
        raise InputError(f"{path} has another format version: {_FIX}")
    config = EncoderConfig(**values)
    if not 0 < config.input_size <= MAX_INPUT_SIZE:
        raise InputError(
            f"{path}: input_size {config.input_size} is not between 1 and {MAX_INPUT_SIZE}: {_FIX}"
        )
    if not _are_digests(values["graphs_sha256"]):
        raise InputError(f"{path}: graphs_sha256 does not have lists for every pooling: {_FIX}")
    return config


def _are_digests(graphs: Mapping[str, Any]) -> bool:
    """Whether there is a digest for each pooling and number of scales."""
    return set(graphs) == set(POOLINGS) and all(
        isinstance(digests, list) and digests and all(isinstance(d, str) for d in digests)
        for digests in graphs.values()
    )
