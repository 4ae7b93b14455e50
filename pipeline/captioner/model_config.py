"""What model.json says of trained decoders; nothing here needs Keras."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.features.feature_spec import FeatureSpec
from pipeline.files import read_json, write_json
from pipeline.text.vocabulary import Vocabulary

FORMAT_VERSION = 5
FIX = "run `dvc repro train`"


@dataclass(frozen=True)
class DecoderConfig:
    """All that is needed to rebuild a decoder's graph.

    Attributes:
        name: of the decoder, a key of `decoder.DECODERS`.
        vocabulary_size: ids, markers included.
        feature_shape: of one photo's vectors: (D,) or (P, D).
        embedding_size: length of a word's vector.
        units: of the LSTM.
        dropout: share of the image's and the words' numbers dropped while learning.
        output_dropout: the same of what the next word is told from.
        tied_embeddings: whether words are told by the vectors that they are read by.
        feature_norm: "center": the mean of the training photos' vectors is taken off them;
            "l2": they are all made equally long; or "none". Of places seen as a whole it is
            their mean that is meant.
        feature_noise: deviation of noise added to the same while learning.
        spatial_residual_size: numbers that tell how each place differs from the mean of all, where a
            photo is seen as a whole.
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


@dataclass(frozen=True)
class Member:
    """One training of a decoder.

    Attributes:
        seed: that it began with; it names the file of its weights.
        weights_sha256: digest of them, see `weights.digest`.
        metadata: how it went, for reports.
    """

    seed: int
    weights_sha256: str
    metadata: dict[str, Any]


@dataclass(frozen=True)
class ModelConfig:
    """Decoders of one kind, trained from several seeds, and what they belong to.

    Attributes:
        config: of their graphs.
        members: the trainings, in the order of `train.seeds`.
        feature_spec: of the features they learned from; they work with no other features.
        vocabulary: fingerprint of the vocabulary that their ids are of.
        metadata: what was the same for all, for reports.
    """

    config: DecoderConfig
    members: tuple[Member, ...]
    feature_spec: FeatureSpec
    vocabulary: str
    metadata: dict[str, Any]

    def check_feature_spec(self, feature_spec: FeatureSpec, path: Path) -> None:
        """Refuse features, or an encoder, of another making than the model learned from.

        Raises:
            InputError: naming `path`, which holds them, and what differs.
        """
        ours, theirs = asdict(self.feature_spec), asdict(feature_spec)
        different = [name for name in ours if ours[name] != theirs[name]]
        if different:
            raise InputError(
                f"{path} and the model do not belong together (other {', '.join(different)}): "
                "run `dvc repro`"
            )

    def write(self, path: Path) -> None:
        """Write model.json."""
        write_json(
            path,
            {
                "format_version": FORMAT_VERSION,
                "decoder": asdict(self.config),
                "members": [asdict(member) for member in self.members],
                "feature_spec": asdict(self.feature_spec),
                "vocabulary": self.vocabulary,
                "metadata": self.metadata,
            },
        )


def read_model_config(path: Path, vocabulary: Vocabulary) -> ModelConfig:
    """Read model.json.

    Raises:
        InputError: the file is absent, damaged or of another version, or the vocabulary
            is not the one that the model was trained with.
    """
    values = read_json(path, FIX)
    if values.get("format_version") != FORMAT_VERSION:
        raise InputError(f"{path} is of another format version: {FIX}")
    try:
        decoder = values["decoder"]
        if missing := {field.name for field in fields(DecoderConfig)} - set(decoder):
            raise KeyError(min(missing))
        config = DecoderConfig(**decoder | {"feature_shape": tuple(decoder["feature_shape"])})
        model = ModelConfig(
            config,
            tuple(Member(**member) for member in values["members"]),
            FeatureSpec(**values["feature_spec"]),
            values["vocabulary"],
            values["metadata"],
        )
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error!r}): {FIX}") from None
    if not _are_members(model.members):
        raise InputError(f"{path} is damaged (members {values['members']!r:.80}): {FIX}")
    if not isinstance(model.metadata, dict):
        raise InputError(f"{path} is damaged (metadata {model.metadata!r:.80}): {FIX}")
    if not model.feature_spec.is_valid:
        raise InputError(f"{path} is damaged (its feature_spec is invalid): {FIX}")
    if model.vocabulary != vocabulary.fingerprint or config.vocabulary_size != len(vocabulary):
        raise InputError(f"{path} was trained with another vocabulary: {FIX}")
    return model


def _are_members(members: Sequence[Member]) -> bool:
    """Whether there are some, as they have to be, and no two of one seed."""
    sound = all(isinstance(m.seed, int) and isinstance(m.metadata, dict) for m in members)
    return sound and 0 < len(members) == len({m.seed for m in members})
