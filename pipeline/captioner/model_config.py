"""The contents of model.json, which describes trained decoders. Imports no Keras."""

import operator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.features.feature_spec import FeatureSpec, read_feature_spec
from pipeline.files import read_json, record_from_json, write_json
from pipeline.text.vocabulary import Vocabulary

FORMAT_VERSION = 6
FIX = "run `dvc repro train`"
_MAX_WORDS = 1_000_000


@dataclass(frozen=True)
class DecoderConfig:
    """Architecture of a decoder: everything that is needed to rebuild its graphs.

    Attributes:
        name: a key of `decoder.DECODERS`.
        vocabulary_size: number of ids, special tokens included.
        feature_shape: shape of one photo's features: (D,) or (P, D).
        embedding_size: size of the word embeddings.
        units: size of the LSTM.
        dropout: dropout rate of the image features and the word embeddings.
        output_dropout: dropout rate before the logits.
        tied_embeddings: whether the output layer shares the weights of the word embeddings.
        feature_norm: "center" subtracts the mean of the training photos' features, "l2" scales
            each vector to one length, "none" does neither. A decoder that reads features (P, D)
            as one vector normalizes their mean over P.
        feature_noise: standard deviation of Gaussian noise added in training to the normalized
            features.
        spatial_residual_size: for a decoder that reads features (P, D) as one vector: numbers
            per position that encode its difference from the mean; 0 disables them.
    """

    name: str
    vocabulary_size: int
    feature_shape: tuple[int, ...]
    embedding_size: int
    units: int
    dropout: float
    output_dropout: float
    tied_embeddings: bool = False
    feature_norm: str = "none"
    feature_noise: float = 0.0
    spatial_residual_size: int = 0

    @property
    def min_weights(self) -> int:
        """A lower bound of the number of weights, known before memory is allocated for them."""
        embedding = self.vocabulary_size * self.embedding_size
        recurrent = 4 * self.units**2  # of the LSTM's gates
        image = self.feature_shape[-1] * max(self.spatial_residual_size, 1)
        return embedding + recurrent + image

    def check(self) -> None:
        """Check the ranges of the sizes; their types are those of the fields.

        Raises:
            ValueError: a size is impossible.
        """
        sizes = (*self.feature_shape, self.vocabulary_size, self.embedding_size, self.units)
        if len(self.feature_shape) not in (1, 2) or min(sizes) < 1:
            raise ValueError("a size is missing or below 1")
        if self.spatial_residual_size < 0:
            raise ValueError("spatial_residual_size is below 0")


@dataclass(frozen=True)
class Member:
    """One of the model's decoders: a member of the ensemble.

    Attributes:
        seed: seed of its training; part of the name of its weights file.
        weights_sha256: digest of its weights, see `keras_weights.digest`.
        metadata: how its training went, for reports.
    """

    seed: int
    weights_sha256: str
    metadata: dict[str, Any]


@dataclass(frozen=True)
class ModelConfig:
    """Decoders of one architecture, trained from several seeds, and the inputs they belong to.

    Attributes:
        decoder: the architecture.
        members: the decoders, in the order of `train.seeds`.
        feature_spec: specification of the features they were trained on; they work with no others.
        vocabulary_fingerprint: fingerprint of the vocabulary that defines their ids.
        metadata: what all trainings have in common, for reports.
    """

    decoder: DecoderConfig
    members: tuple[Member, ...]
    feature_spec: FeatureSpec
    vocabulary_fingerprint: str
    metadata: dict[str, Any]

    def check_feature_spec(self, feature_spec: FeatureSpec, path: Path) -> None:
        """Check that features, or an encoder, match those that the model was trained on.

        Raises:
            InputError: they do not match; the message names `path`, their file, and what differs.
        """
        expected, actual = asdict(self.feature_spec), asdict(feature_spec)
        different = [name for name in expected if expected[name] != actual[name]]
        if different:
            raise InputError(
                f"{path} and the model do not belong together (other {', '.join(different)}): "
                "run `dvc repro`"
            )

    def check_metadata(self, path: Path) -> None:
        """Check the metadata that reports read; a model captions photos without it.

        Raises:
            InputError: the metadata lack something, or it is of another type.
        """
        try:
            if not 1 <= operator.index(self.metadata["params"]["max_words"]) <= _MAX_WORDS:
                raise ValueError("max_words")
            for member in self.members:
                best = member.metadata["best"]
                for name in ("validation_loss", "validation_cider_d"):
                    format(best[name], ".4f")
                operator.index(best["epoch"])
                operator.index(member.metadata["epochs"])
                str.strip(member.metadata["stopped"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{path} is damaged (metadata: {error}): {FIX}") from None

    def write(self, path: Path) -> None:
        """Write model.json."""
        write_json(
            path,
            {
                "format_version": FORMAT_VERSION,
                "decoder": asdict(self.decoder),
                "members": [asdict(member) for member in self.members],
                "feature_spec": asdict(self.feature_spec),
                "vocabulary": self.vocabulary_fingerprint,
                "metadata": self.metadata,
            },
        )


def read_model_config(path: Path, vocabulary: Vocabulary) -> ModelConfig:
    """Read model.json.

    Raises:
        InputError: the file is absent, damaged or has another format version, or the model was
            trained with another vocabulary.
    """
    values = read_json(path, FIX)
    if values.get("format_version") != FORMAT_VERSION:
        raise InputError(f"{path} has another format version: {FIX}")
    try:
        config = ModelConfig(
            record_from_json(DecoderConfig, values["decoder"]),
            tuple(record_from_json(Member, member) for member in values["members"]),
            read_feature_spec(values["feature_spec"]),
            values["vocabulary"],
            values["metadata"],
        )
        config.decoder.check()
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}): {FIX}") from None
    seeds = {member.seed for member in config.members}
    if not 0 < len(config.members) == len(seeds) or min(seeds) < 0:
        raise InputError(f"{path} is damaged (members {values['members']!r:.80}): {FIX}")
    if not isinstance(config.metadata, dict):
        raise InputError(f"{path} is damaged (metadata {config.metadata!r:.80}): {FIX}")
    same_vocabulary = config.vocabulary_fingerprint == vocabulary.fingerprint
    if not same_vocabulary or config.decoder.vocabulary_size != len(vocabulary):
        raise InputError(f"{path} was trained with another vocabulary: {FIX}")
    return config


def weights_file(folder: Path, seed: int) -> Path:
    """Return the path of the weights of the decoder trained from `seed`."""
    return folder / f"seed_{seed}.weights.h5"
