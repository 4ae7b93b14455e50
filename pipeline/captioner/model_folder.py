"""The model folder: the decoders' weights, and model.json that describes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.backend import keras
from pipeline.captioner.decoders.decoder import DECODERS, Decoder, build_decoder
from pipeline.captioner.model_config import (
    FIX,
    Member,
    ModelConfig,
    read_model_config,
    weights_file,
)
from pipeline.errors import InputError, collapsed_message
from pipeline.features.feature_spec import FeatureSpec
from pipeline.files import check_regular
from pipeline.storage import keras_weights
from pipeline.storage.hdf5 import open_self_contained
from pipeline.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class Model:
    """Trained decoders, one for each seed, and their description.

    Attributes:
        decoders: the decoders with their weights, in the order of `config.members`.
        config: the contents of model.json.
    """

    decoders: tuple[Decoder, ...]
    config: ModelConfig

    @staticmethod
    def from_decoders(
        trained: Mapping[int, tuple[Decoder, dict[str, Any]]],
        feature_spec: FeatureSpec,
        vocabulary_fingerprint: str,
        metadata: dict[str, Any],
    ) -> "Model":
        """Make a model of trained decoders.

        Args:
            trained: seed to the decoder and the metadata of its training, see `Member`.
            feature_spec: see `ModelConfig`.
            vocabulary_fingerprint: see `ModelConfig`.
            metadata: see `ModelConfig`.
        """
        decoders = tuple(decoder for decoder, _ in trained.values())
        members = tuple(
            Member(seed, keras_weights.digest(decoder.network), training)
            for seed, (decoder, training) in trained.items()
        )
        architecture = decoders[0].config
        config = ModelConfig(architecture, members, feature_spec, vocabulary_fingerprint, metadata)
        return Model(decoders, config)

    def save(self, folder: Path) -> None:
        """Write `seed_N.weights.h5` for each member, and then `model.json`."""
        for decoder, member in zip(self.decoders, self.config.members, strict=True):
            network = decoder.network
            # Without the optimizer of a network in training, which Keras would save too.
            bare = keras.Model(network.inputs, network.outputs, name=network.name)
            keras_weights.save(bare, weights_file(folder, member.seed))
        self.config.write(folder / "model.json")

    @staticmethod
    def load(folder: Path, vocabulary: Vocabulary) -> "Model":
        """Rebuild the decoders in code and load their weights.

        Raises:
            InputError: a file is absent, damaged or has another format version, or the model
                was trained with another vocabulary.
        """
        config = read_model_config(folder / "model.json", vocabulary)
        decoders = tuple(load_member(folder, config, member) for member in config.members)
        return Model(decoders, config)


def load_member(folder: Path, config: ModelConfig, member: Member) -> Decoder:
    """Rebuild one of the decoders and load its weights.

    Raises:
        InputError: the weights are absent or damaged, or model.json is damaged.
    """
    path = folder / "model.json"
    if config.decoder.name not in DECODERS:
        raise InputError(f"{path} names an unknown decoder {config.decoder.name!r}: {FIX}")
    file = weights_file(folder, member.seed)
    # Before memory is allocated for sizes that nobody but model.json vouches for.
    check_regular(file, FIX)
    if config.decoder.min_weights * np.float32().nbytes > file.stat().st_size:
        with open_self_contained(file, FIX):  # refuses a damaged file by its own name
            raise InputError(f"{path} describes a larger decoder than {file} has: {FIX}")
    try:
        decoder = build_decoder(config.decoder)
    except (InputError, TypeError, ValueError) as error:
        reason = collapsed_message(error)[:200]
        raise InputError(f"{path} is damaged ({reason}): {FIX}") from None
    keras_weights.load(decoder.network, file, FIX)
    if keras_weights.digest(decoder.network) != member.weights_sha256:
        raise InputError(f"{file} has other weights than {path} records: {FIX}")
    return decoder
