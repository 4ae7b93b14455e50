"""Captioning: photos in, captions out, from the artefacts of the last run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.captioner.model import Model
from pipeline.captioner.search import search
from pipeline.captions.vocabulary import Vocabulary
from pipeline.errors import InputError
from pipeline.features.encoders import read_encoder
from pipeline.features.engines import Engine, make_engine
from pipeline.features.photos import decode
from pipeline.features.weights import load_encoder

FILES = ("model/model.json", "vocabulary.json", "encoder.json", "encoder.weights.h5")
# As params.yaml has them for `extract` and `evaluate`, which an exported folder lacks.
MAX_WORDS = 32
MAX_PIXELS = 100_000_000


@dataclass(frozen=True)
class Caption:
    """A caption and the natural logarithm of what the model gives it."""

    caption: str
    log_probability: float


@dataclass(frozen=True)
class Captioner:
    """A decoder and the encoder that it learned to listen to."""

    model: Model
    vocabulary: Vocabulary
    engine: Engine

    @staticmethod
    def load(artifacts: Path, batch_size: int, engine: str) -> "Captioner":
        """Load the model, and an encoder that makes features as the model learned them.

        Args:
            artifacts: the folder that `dvc repro` fills.
            batch_size: photos that `caption` takes at once.
            engine: see `make_engine`.

        Raises:
            InputError: an artefact is absent or damaged, or encoder and model do not
                belong together.
        """
        missing = [name for name in FILES if not (artifacts / name).exists()]
        if missing:
            raise InputError(
                f"{artifacts} has no {', '.join(missing)}: run `dvc repro`, "
                "or name the folder of a finished run with --artifacts"
            )
        vocabulary = Vocabulary.load(artifacts / "vocabulary.json")
        model = Model.load(artifacts / "model", vocabulary)
        description = read_encoder(artifacts / "encoder.json")
        learned = model.encoding
        encoding = description.encoding(learned.pooling, learned.dtype)
        model.check_encoding(encoding, artifacts / "encoder.json")
        network = load_encoder(artifacts, learned.pooling)
        if network.output_shape[1:] != model.decoder.config.feature_shape:
            raise InputError(
                f"{artifacts / 'model' / 'model.json'} is damaged (pooling {learned.pooling!r} "
                "does not give its feature_shape): run `dvc repro train`"
            )
        ready = make_engine(engine, network, description.encoder, batch_size)
        return Captioner(model, vocabulary, ready)

    def decode(self, data: bytes) -> np.ndarray:
        """Decode a photo's bytes as the feature store's were; raises `PhotoError`."""
        return decode(data, self.model.encoding.input_size, MAX_PIXELS)

    def caption(self, photos: Sequence[np.ndarray], beam_width: int) -> list[list[Caption]]:
        """Caption decoded photos, each (S, S, 3); at most `batch_size` of them.

        Returns:
            For each photo `beam_width` captions or fewer, best first.
        """
        vectors = self.engine.encode(np.stack(photos))
        # The decoder learned from stored vectors: the same rounding belongs to them.
        features = vectors.astype(self.model.encoding.dtype).astype(np.float32)
        found = search(self.model.decoder, features, beam_width, MAX_WORDS, repeat_trigrams=False)
        return [
            [Caption(self.vocabulary.decode(h.ids), h.log_probability) for h in hypotheses]
            for hypotheses in found
        ]
