"""The model folder: a decoder's weights, and a JSON that says what they are."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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

    def save(self, folder: Path) -> None:
        """Write `model.weights.h5` and then `model.json`."""
        weights.save(self.decoder.network, folder / "model.weights.h5")
        write_json(
            folder / "model.json",
            {
                "format_version": FORMAT_VERSION,
                "decoder": asdict(self.decoder.config),
                "weights_sha256": weights.digest(self.decoder.network),
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
        if config.name not in DECODERS:
            raise InputError(f"{path} names an unknown decoder {config.name!r}: {_MEND}")
        if trained_with != vocabulary.fingerprint or config.vocabulary_size != len(vocabulary):
            raise InputError(f"{path} was trained with another vocabulary: {_MEND}")
        decoder = build_decoder(config)
        weights.load(decoder.network, folder / "model.weights.h5", _MEND)
        if weights.digest(decoder.network) != digest:
            raise InputError(f"{folder / 'model.weights.h5'} is not what {path} tells of: {_MEND}")
        return Model(decoder, encoding, trained_with, facts)
