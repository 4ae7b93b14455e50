"""The captioner: decoded photos in, captions out, from the artefacts of a run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.captioner.artifacts import TO_CAPTION, Artifacts
from pipeline.captioner.decoders.openvino import load_openvino_decoder
from pipeline.captioner.generation.beam_search import search
from pipeline.captioner.generation.interfaces import (
    Hypothesis,
    StepDecoder,
    SupportsUnconditional,
)
from pipeline.captioner.generation.sampling import Sampling, sample
from pipeline.captioner.generation.settings import SearchSettings
from pipeline.captioner.model_config import FIX, Member, ModelConfig
from pipeline.errors import InputError
from pipeline.features.encoders.engines import Engine, OpenVINOEngine, load_engine
from pipeline.features.photos import decode
from pipeline.features.views import join
from pipeline.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from pipeline.captioner.decoders.decoder import Decoder

MAX_PIXELS = 100_000_000  # of a photo; `extract.max_pixels` has the same limit by default


@dataclass(frozen=True)
class Caption:
    """A caption and its log-probability (natural logarithm) under the model."""

    caption: str
    log_probability: float


@dataclass(frozen=True)
class Captioner:
    """A decoder to search with, and the encoder that makes the features it was trained on.

    Attributes:
        model: what model.json describes.
        settings: how captions are searched for.
        decoder: all decoders of the model, guided.
        vocabulary: of the decoder.
        engine: runs the encoder.
    """

    model: ModelConfig
    settings: SearchSettings
    decoder: StepDecoder
    vocabulary: Vocabulary
    engine: Engine

    @staticmethod
    def load(
        folder: Path, batch_size: int, engine_kind: str = "auto", **changed: Any
    ) -> "Captioner":
        """Load the model, and an encoder that makes features as the model learned them.

        Args:
            folder: the artefacts of a run.
            batch_size: photos that `caption` takes at once.
            engine_kind: see `load_engine`; the decoder runs on the same engine.
            changed: search settings other than those of search.json; see `SearchSettings`.

        Raises:
            InputError: an artefact is absent or damaged, or two do not belong together.
        """
        artifacts = Artifacts.open(folder, *TO_CAPTION)
        model, settings = artifacts.model, replace(artifacts.search, **changed)
        engine = load_engine(engine_kind, artifacts.folder, artifacts.feature_spec, batch_size)
        if engine.shape != model.config.feature_shape:
            raise InputError(
                f"{artifacts.folder / 'model' / 'model.json'} is damaged (pooling "
                f"{model.encoding.pooling!r} does not give its feature_shape): {FIX}"
            )
        members = model.members if settings.ensemble else model.members[:1]
        compiled = isinstance(engine, OpenVINOEngine)
        decoders = [_load_decoder(artifacts, member, compiled=compiled) for member in members]
        decoder = settings.condition(decoders, artifacts.detector)
        return Captioner(model, settings, decoder, artifacts.vocabulary, engine)

    def decode(self, data: bytes) -> npt.NDArray[np.uint8]:
        """Decode a photo's bytes to the pixels of its views, (V, S, S, 3), as `extract` did.

        Raises:
            PhotoError: with the reason.
        """
        spec = self.model.encoding
        return decode(data, spec.input_size, MAX_PIXELS, spec.views)

    def caption(
        self, photos: Sequence[npt.NDArray[np.uint8]], beam_width: int | None = None
    ) -> list[list[Caption]]:
        """Search captions of decoded photos, each (V, S, S, 3); at most `batch_size` of them.

        Args:
            photos: decoded by `decode`.
            beam_width: hypotheses kept for each photo; None: as the settings have it.

        Returns:
            For each photo `beam_width` captions or fewer, best first.
        """
        hypotheses = search(
            self.decoder,
            self._features(photos),
            beam_width or self.settings.beam_width,
            self.settings.max_words,
            no_repeat_ngram_size=self.settings.no_repeat_ngram_size,
        )
        return self._captions(hypotheses)

    def sample(
        self, photos: Sequence[npt.NDArray[np.uint8]], count: int, sampling: Sampling
    ) -> list[list[Caption]]:
        """Draw `count` captions for each of at most `batch_size` decoded photos."""
        features = self._features(photos)
        return self._captions(
            sample(self.decoder, features, count, self.settings.max_words, sampling)
        )

    def _features(self, photos: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        spec = self.model.encoding
        vectors = self.engine.encode(np.concatenate(photos))
        # The decoder was trained on stored vectors, so these need the same rounding.
        stored = vectors.astype(spec.dtype).astype(np.float32)
        if spec.view_count == 1:
            return stored
        return join(stored.reshape(len(photos), spec.view_count, *stored.shape[1:]))

    def _captions(self, hypotheses: list[list[Hypothesis]]) -> list[list[Caption]]:
        return [
            [Caption(self.vocabulary.decode(h.ids), h.log_probability) for h in of_photo]
            for of_photo in hypotheses
        ]


def _load_decoder(artifacts: Artifacts, member: Member, *, compiled: bool) -> SupportsUnconditional:
    """Load a decoder: its OpenVINO graphs, converted the first time, or Keras' own."""

    @cache
    def on_keras() -> "Decoder":
        return artifacts.load_decoder(member)

    if compiled:
        return load_openvino_decoder(artifacts.folder, artifacts.model, member, on_keras)
    return on_keras()
