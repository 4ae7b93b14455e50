"""What model.json says of a trained decoder; nothing here needs Keras."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.captions.vocabulary import Vocabulary
from pipeline.errors import InputError
from pipeline.features.encoding import Encoding
from pipeline.files import read_json, write_json

FORMAT_VERSION = 2
MEND = "run `dvc repro train`"


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
    """

    name: str
    vocabulary_size: int
    feature_shape: tuple[int, ...]
    embedding_size: int
    units: int
    dropout: float
    output_dropout: float


@dataclass(frozen=True)
class ModelDescription:
    """A trained decoder and what it belongs to.

    Attributes:
        config: of its graph.
        weights_sha256: digest of its weights, see `weights.digest`.
        encoding: of the features it learned from; only such features mean anything to it.
        vocabulary: fingerprint of the vocabulary that its ids are of.
        facts: how it was trained, for reports.
    """

    config: DecoderConfig
    weights_sha256: str
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

    def write(self, path: Path) -> None:
        """Write model.json."""
        write_json(
            path,
            {
                "format_version": FORMAT_VERSION,
                "decoder": asdict(self.config),
                "weights_sha256": self.weights_sha256,
                "encoding": asdict(self.encoding),
                "vocabulary": self.vocabulary,
                "facts": self.facts,
            },
        )


def read_model(path: Path, vocabulary: Vocabulary) -> ModelDescription:
    """Read model.json.

    Raises:
        InputError: the file is absent, damaged or of another version, or the vocabulary
            is not the one that the model was trained with.
    """
    values = read_json(path, MEND)
    if values.get("format_version") != FORMAT_VERSION:
        raise InputError(f"{path} is of another format version: {MEND}")
    try:
        config = DecoderConfig(
            **values["decoder"] | {"feature_shape": tuple(values["decoder"]["feature_shape"])}
        )
        model = ModelDescription(
            config,
            values["weights_sha256"],
            Encoding(**values["encoding"]),
            values["vocabulary"],
            values["facts"],
        )
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error!r}): {MEND}") from None
    if model.encoding.dtype not in ("float16", "float32"):
        raise InputError(f"{path} is damaged (dtype {model.encoding.dtype!r}): {MEND}")
    if model.vocabulary != vocabulary.fingerprint or config.vocabulary_size != len(vocabulary):
        raise InputError(f"{path} was trained with another vocabulary: {MEND}")
    return model
