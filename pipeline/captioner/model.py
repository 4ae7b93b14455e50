"""The model folder: a decoder's weights, and a JSON that says what they are."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.backend import keras
from pipeline.captioner.decoder import DECODERS, Decoder, DecoderConfig, build_decoder
from pipeline.captions.vocabulary import Vocabulary
from pipeline.errors import InputError
from pipeline.features import weights
from pipeline.features.encoders import Encoding
from pipeline.files import read_json, write_json

FORMAT_VERSION = 1
_MEND = "run `dvc repro train`"


@dataclass(frozen=True)
class Model:
    """A trained decoder and what it belongs to.

    Attributes:
        decoder: with its weights.
        encoding: of the features it learned from; only such features mean anything to it.
        vocabulary: fingerprint of the vocabulary that its ids are of.
        facts: how it was trained, for reports.
    """

    decoder: Decoder
    encoding: Encoding
    vocabulary: str
    facts: dict[str, Any]

    def check_encoding(self, encoding: Encoding, path: Path) -> None:
        """Refuse features, or an encoder, of another making than the model learned from.

        Raises:
            InputError: naming `path`, which holds them, and what differs.
        """
        ours, theirs = asdict(self.encoding), asdict(encoding)
        different = [name for name in ours if ours[name] != theirs[name]]
        if different:
            raise InputError(
                f"{path} and the model do not belong together (other {', '.join(different)}): "
                "run `dvc repro`"
            )

    def save(self, folder: Path) -> None:
        """Write `model.weights.h5` and then `model.json`."""
        network = self.decoder.network
        # A network in training has its optimizer with it, which Keras would save as well.
        bare = keras.Model(network.inputs, network.outputs, name=network.name)
        weights.save(bare, folder / "model.weights.h5")
        write_json(
            folder / "model.json",
            {
                "format_version": FORMAT_VERSION,
                "decoder": asdict(self.decoder.config),
                "weights_sha256": weights.digest(network),
                "encoding": asdict(self.encoding),
                "vocabulary": self.vocabulary,
                "facts": self.facts,
            },
        )

    @staticmethod
    def load(folder: Path, vocabulary: Vocabulary) -> "Model":
        """Rebuild the decoder's graph in code and fill it from the weights file.

        Raises:
            InputError: a file is absent, damaged or of another version, or the
                vocabulary is not the one that the model was trained with.
        """
        path = folder / "model.json"
        values = read_json(path, _MEND)
        if values.get("format_version") != FORMAT_VERSION:
            raise InputError(f"{path} is of another format version: {_MEND}")
        try:
            config = DecoderConfig(
                **values["decoder"] | {"feature_shape": tuple(values["decoder"]["feature_shape"])}
            )
            encoding = Encoding(**values["encoding"])
            digest, trained_with, facts = (
                values["weights_sha256"],
                values["vocabulary"],
                values["facts"],
            )
        except (KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged ({error!r}): {_MEND}") from None
        if encoding.dtype not in ("float16", "float32"):
            raise InputError(f"{path} is damaged (dtype {encoding.dtype!r}): {_MEND}")
        if config.name not in list(DECODERS):
            raise InputError(f"{path} names an unknown decoder {config.name!r}: {_MEND}")
        if trained_with != vocabulary.fingerprint or config.vocabulary_size != len(vocabulary):
            raise InputError(f"{path} was trained with another vocabulary: {_MEND}")
        try:
            decoder = build_decoder(config)
        except (TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{path} is damaged ({reason}): {_MEND}") from None
        weights.load(decoder.network, folder / "model.weights.h5", _MEND)
        if weights.digest(decoder.network) != digest:
            raise InputError(f"{folder / 'model.weights.h5'} is not what {path} tells of: {_MEND}")
        return Model(decoder, encoding, trained_with, facts)
