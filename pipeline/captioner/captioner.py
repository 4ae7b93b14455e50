"""The captioner: generates captions for photos with the artifacts of a finished run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.captioner.artifacts import CAPTIONER_FILES, Artifacts
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
from pipeline.features.decoding.photos import decode_photo
from pipeline.features.decoding.views import merge_views
from pipeline.features.encoders.engines import Engine, OpenVINOEngine, load_engine
from pipeline.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from pipeline.captioner.decoders.decoder import Decoder

MAX_PIXELS = 100_000_000  # pixels of a photo; the default of `extract.max_pixels`


@dataclass(frozen=True)
class Caption:
    """A generated caption.

    Attributes:
        text: its words.
        log_probability: natural logarithm of its probability under the model.
    """

    text: str
    log_probability: float


@dataclass(frozen=True)
class Captioner:
    """An encoder, and a decoder that was trained on its features.

    Attributes:
        model_config: the contents of model.json.
        settings: search settings.
        decoder: all decoders of the model combined, with guidance.
        vocabulary: the decoder's vocabulary.
        engine: runs the encoder.
    """

    model_config: ModelConfig
    settings: SearchSettings
    decoder: StepDecoder
    vocabulary: Vocabulary
    engine: Engine

    @staticmethod
    def load(
        folder: Path, batch_size: int, engine_kind: str = "auto", **overrides: Any
    ) -> "Captioner":
        """Load encoder, decoders and search settings from the folder of a finished run.

        Args:
            folder: artifacts/, or a copy of it.
            batch_size: maximum number of photos in a call of `caption` or `sample`.
            engine_kind: see `load_engine`; the decoder runs on the same engine.
            overrides: search settings that replace those of search.json; see `SearchSettings`.

        Raises:
            InputError: a file is absent or damaged, or two files do not belong together.
        """
        artifacts = Artifacts.open(folder, *CAPTIONER_FILES)
        model_config, settings = (
            artifacts.model_config,
            replace(artifacts.search_settings, **overrides),
        )
        engine = load_engine(engine_kind, artifacts.folder, artifacts.feature_spec, batch_size)
        if engine.shape != model_config.decoder.feature_shape:
            raise InputError(
                f"{artifacts.folder / 'model' / 'model.json'} is damaged (pooling "
                f"{model_config.feature_spec.pooling!r} does not give its feature_shape): {FIX}"
            )
        members = model_config.members if settings.ensemble else model_config.members[:1]
        compiled = isinstance(engine, OpenVINOEngine)
        decoders = [_load_decoder(artifacts, member, compiled=compiled) for member in members]
        decoder = artifacts.combine_decoders(settings, decoders)
        return Captioner(model_config, settings, decoder, artifacts.vocabulary, engine)

    def decode(self, data: bytes) -> npt.NDArray[np.uint8]:
        """Decode a photo's bytes to the pixels of its views, (V, S, S, 3), as `extract` does.

        Raises:
            PhotoError: the photo cannot be decoded; the message is the reason.
        """
        spec = self.model_config.feature_spec
        return decode_photo(data, spec.input_size, MAX_PIXELS, spec.views)

    def caption(
        self, images: Sequence[npt.NDArray[np.uint8]], beam_width: int | None = None
    ) -> list[list[Caption]]:
        """Generate captions by search.

        Args:
            images: at most `batch_size` decoded photos, each (V, S, S, 3).
            beam_width: hypotheses kept for each photo; None: as in the settings.

        Returns:
            For each photo `beam_width` captions or fewer, best first.
        """
        hypotheses = search(
            self.decoder,
            self._features(images),
            beam_width or self.settings.beam_width,
            self.settings.max_words,
            no_repeat_ngram_size=self.settings.no_repeat_ngram_size,
        )
        return self._captions(hypotheses)

    def sample(
        self, images: Sequence[npt.NDArray[np.uint8]], count: int, sampling: Sampling
    ) -> list[list[Caption]]:
        """Sample `count` captions for each of at most `batch_size` decoded photos."""
        features = self._features(images)
        return self._captions(
            sample(self.decoder, features, count, self.settings.max_words, sampling)
        )

    def _features(self, images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        spec = self.model_config.feature_spec
        features = self.engine.encode(np.concatenate(images))
        # The decoder was trained on stored features, so these need the same rounding.
        rounded = features.astype(spec.dtype).astype(np.float32)
        if not np.isfinite(rounded).all():
            raise InputError(
                "the encoder computes NaN or infinite numbers: run `dvc repro encoder`, and set "
                "extract.dtype in params.yaml to float32 if that does not help"
            )
        if spec.view_count == 1:
            return rounded
        return merge_views(rounded.reshape(len(images), spec.view_count, *rounded.shape[1:]))

    def _captions(self, hypotheses: list[list[Hypothesis]]) -> list[list[Caption]]:
        # Without numbers for its first word, a hypothesis is cut off before it.
        if any(not h.ids and not h.finished for of_photo in hypotheses for h in of_photo):
            raise InputError(f"the decoder computes NaN or infinite numbers: {FIX}")
        return [
            [Caption(self.vocabulary.decode(h.ids), h.log_probability) for h in photo_hypotheses]
            for photo_hypotheses in hypotheses
        ]


def _load_decoder(artifacts: Artifacts, member: Member, *, compiled: bool) -> SupportsUnconditional:
    """Load a decoder as OpenVINO graphs, which are converted if there are none yet, or on Keras."""

    @cache
    def load_on_keras() -> "Decoder":
        return artifacts.load_decoder(member)

    if compiled:
        return load_openvino_decoder(
            artifacts.folder, artifacts.model_config, member, load_on_keras
        )
    return load_on_keras()
