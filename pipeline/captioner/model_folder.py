"""The model folder: decoders' weights, and a JSON that says what they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.backend import keras
from pipeline.captioner.decoders.decoder import DECODERS, Decoder, build_decoder
from pipeline.captioner.model_config import FIX, Member, ModelConfig, read_model_config
from pipeline.errors import InputError, collapsed
from pipeline.features.feature_spec import FeatureSpec
from pipeline.storage import keras_weights
from pipeline.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class Model:
    """Trained decoders, one of each seed, and what is told of them.

    Attributes:
        decoders: with their weights, in the order of the description's members.
        description: what they are and belong to.
    """

    decoders: tuple[Decoder, ...]
    description: ModelConfig

    @staticmethod
    def of(
        trained: Mapping[int, tuple[Decoder, dict[str, Any]]],
        feature_spec: FeatureSpec,
        vocabulary: str,
        metadata: dict[str, Any],
    ) -> "Model":
        """Describe decoders just trained.

        Args:
            trained: each seed's decoder, and how its training went.
            feature_spec: see `ModelConfig`.
            vocabulary: see `ModelConfig`.
            metadata: see `ModelConfig`.
        """
        decoders = tuple(decoder for decoder, _ in trained.values())
        members = tuple(
            Member(seed, keras_weights.digest(decoder.network), how)
            for seed, (decoder, how) in trained.items()
        )
        config = decoders[0].config
        return Model(decoders, ModelConfig(config, members, feature_spec, vocabulary, metadata))

    def save(self, folder: Path) -> None:
        """Write `seed_N.weights.h5` for each member, and then `model.json`."""
        for decoder, member in zip(self.decoders, self.description.members, strict=True):
            network = decoder.network
            # A network in training has its optimizer with it, which Keras would save as well.
            bare = keras.Model(network.inputs, network.outputs, name=network.name)
            keras_weights.save(bare, weights_file(folder, member.seed))
        self.description.write(folder / "model.json")

    @staticmethod
    def load(folder: Path, vocabulary: Vocabulary) -> "Model":
        """Rebuild the decoders' graphs in code and fill them from the weights files.

        Raises:
            InputError: a file is absent, damaged or of another version, or the
                vocabulary is not the one that the model was trained with.
        """
        description = read_model_config(folder / "model.json", vocabulary)
        decoders = tuple(load_member(folder, description, member) for member in description.members)
        return Model(decoders, description)


def load_member(folder: Path, description: ModelConfig, member: Member) -> Decoder:
    """Rebuild one of the decoders.

    Raises:
        InputError: its weights are absent or damaged, or the description is.
    """
    path = folder / "model.json"
    if description.config.name not in list(DECODERS):
        name = description.config.name
        raise InputError(f"{path} names an unknown decoder {name!r}: {FIX}")
    try:
        decoder = build_decoder(description.config)
    except (InputError, TypeError, ValueError) as error:
        reason = collapsed(error)[:200]
        raise InputError(f"{path} is damaged ({reason}): {FIX}") from None
    file = weights_file(folder, member.seed)
    keras_weights.load(decoder.network, file, FIX)
    if keras_weights.digest(decoder.network) != member.weights_sha256:
        raise InputError(f"{file} is not what {path} tells of: {FIX}")
    return decoder


def weights_file(folder: Path, seed: int) -> Path:
    """Return where the weights of the training from `seed` are."""
    return folder / f"seed_{seed}.weights.h5"
