"""The model folder: a decoder's weights, and a JSON that says what they are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.backend import keras
from pipeline.captioner.decoder import DECODERS, Decoder, build_decoder
from pipeline.captioner.description import MEND, ModelDescription, read_model
from pipeline.captions.vocabulary import Vocabulary
from pipeline.errors import InputError
from pipeline.features import weights
from pipeline.features.encoding import Encoding


@dataclass(frozen=True)
class Model:
    """A trained decoder and what is told of it.

    Attributes:
        decoder: with its weights.
        description: what it is and belongs to.
    """

    decoder: Decoder
    description: ModelDescription

    @staticmethod
    def of(decoder: Decoder, encoding: Encoding, vocabulary: str, facts: dict[str, Any]) -> "Model":
        """Describe a decoder just trained; see `ModelDescription`."""
        digest = weights.digest(decoder.network)
        description = ModelDescription(decoder.config, digest, encoding, vocabulary, facts)
        return Model(decoder, description)

    def save(self, folder: Path) -> None:
        """Write `model.weights.h5` and then `model.json`."""
        network = self.decoder.network
        # A network in training has its optimizer with it, which Keras would save as well.
        bare = keras.Model(network.inputs, network.outputs, name=network.name)
        weights.save(bare, folder / "model.weights.h5")
        self.description.write(folder / "model.json")

    @staticmethod
    def load(folder: Path, vocabulary: Vocabulary) -> "Model":
        """Rebuild the decoder's graph in code and fill it from the weights file.

        Raises:
            InputError: a file is absent, damaged or of another version, or the
                vocabulary is not the one that the model was trained with.
        """
        path = folder / "model.json"
        description = read_model(path, vocabulary)
        if description.config.name not in list(DECODERS):
            name = description.config.name
            raise InputError(f"{path} names an unknown decoder {name!r}: {MEND}")
        try:
            decoder = build_decoder(description.config)
        except (InputError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{path} is damaged ({reason}): {MEND}") from None
        weights.load(decoder.network, folder / "model.weights.h5", MEND)
        if weights.digest(decoder.network) != description.weights_sha256:
            raise InputError(f"{folder / 'model.weights.h5'} is not what {path} tells of: {MEND}")
        return Model(decoder, description)
