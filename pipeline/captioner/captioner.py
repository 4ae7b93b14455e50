"""Captioning: photos in, captions out, from the artefacts of the last run."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.captioner.decoders.openvino import load_compiled
from pipeline.captioner.generation.beam_search import search
from pipeline.captioner.generation.ensemble import make_ensemble
from pipeline.captioner.generation.guidance import with_guidance
from pipeline.captioner.generation.interfaces import Hypothesis, StepDecoder
from pipeline.captioner.generation.sampling import Sampling, sample
from pipeline.captioner.generation.word_guidance import with_word_guidance
from pipeline.captioner.model_config import Member, ModelConfig, read_model_config
from pipeline.captioner.word_detector import WordDetector
from pipeline.errors import InputError
from pipeline.features.encoders.engines import Engine, OpenVINOEngine, load_engine
from pipeline.features.feature_spec import read_encoder_config
from pipeline.features.photos import decode_photo
from pipeline.features.views import merge_views
from pipeline.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from pipeline.captioner.decoders.decoder import Decoder

FILES = (
    "model/model.json",
    "vocabulary.json",
    "detector.h5",
    "encoder.json",
    "encoder.weights.h5",
)
# As params.yaml has them for `extract` and `evaluate`, which an exported folder lacks.
MAX_WORDS = 32
MAX_PIXELS = 100_000_000
GUIDANCE = 0.2
WORD_BIAS = 0.3
WORD_AGREEMENT = 3.0


@dataclass(frozen=True)
class Caption:
    """A caption and the natural logarithm of what the model gives it."""

    caption: str
    log_probability: float


@dataclass(frozen=True)
class Captioner:
    """A decoder and the encoder that it learned to listen to."""

    model: ModelConfig
    decoder: StepDecoder
    vocabulary: Vocabulary
    engine: Engine

    @staticmethod
    def load(
        artifacts: Path,
        batch_size: int,
        engine: str = "auto",
        *,
        ensemble: bool = True,
        guidance: float = GUIDANCE,
        word_logit_bias: float = WORD_BIAS,
        word_rerank_weight: float = WORD_AGREEMENT,
    ) -> "Captioner":
        """Load the model, and an encoder that makes features as the model learned them.

        Args:
            artifacts: the folder that `dvc repro` fills.
            batch_size: photos that `caption` takes at once.
            engine: see `load_engine`; the decoder runs on the same.
            ensemble: whether the decoders of all seeds are asked together; else the first.
            guidance: how much more the photo counts, see `with_guidance`.
            word_logit_bias: how much words detected in a photo count, see `with_word_guidance`.
            word_rerank_weight: the same of whole captions.

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
        model = read_model_config(artifacts / "model" / "model.json", vocabulary)
        learned = model.feature_spec
        feature_spec = read_encoder_config(artifacts / "encoder.json").feature_spec(
            learned.views, learned.pooling, learned.scales, learned.dtype
        )
        model.check_feature_spec(feature_spec, artifacts / "encoder.json")
        ready = load_engine(engine, artifacts, feature_spec, batch_size)
        if ready.shape != model.config.feature_shape:
            raise InputError(
                f"{artifacts / 'model' / 'model.json'} is damaged (pooling {learned.pooling!r} "
                "does not give its feature_shape): run `dvc repro train`"
            )

        def steps(member: Member) -> StepDecoder:
            @cache
            def on_keras() -> "Decoder":
                from pipeline.captioner.model_folder import load_member  # noqa: PLC0415  (seconds)

                return load_member(artifacts / "model", model, member)

            if isinstance(ready, OpenVINOEngine):
                return with_guidance(load_compiled(artifacts, model, member, on_keras), guidance)
            return with_guidance(on_keras(), guidance)

        members = model.members if ensemble else model.members[:1]
        detector = WordDetector.load(
            artifacts / "detector.h5", vocabulary, learned, model.config.feature_shape[-1]
        )
        asked = with_word_guidance(
            make_ensemble([steps(m) for m in members]),
            detector,
            word_logit_bias,
            word_rerank_weight,
        )
        return Captioner(model, asked, vocabulary, ready)

    def decode(self, data: bytes) -> np.ndarray:
        """Decode a photo's bytes as the feature store's were, to the pixels of its views.

        Returns:
            (V, S, S, 3).

        Raises:
            PhotoError: with the reason.
        """
        learned = self.model.feature_spec
        return decode_photo(data, learned.input_size, MAX_PIXELS, learned.views)

    def caption(self, photos: Sequence[np.ndarray], beam_width: int) -> list[list[Caption]]:
        """Caption decoded photos, each (V, S, S, 3); at most `batch_size` of them.

        Args:
            photos: decoded by `decode`.
            beam_width: see `search`.

        Returns:
            For each photo `beam_width` captions or fewer, best first.
        """
        features = self._features(photos)
        found = search(self.decoder, features, beam_width, MAX_WORDS, repeat_trigrams=False)
        return self._captions(found)

    def sample(
        self, photos: Sequence[np.ndarray], count: int, sampling: Sampling
    ) -> list[list[Caption]]:
        """Draw `count` captions for each of at most `batch_size` decoded photos."""
        found = sample(self.decoder, self._features(photos), count, MAX_WORDS, sampling)
        return self._captions(found)

    def _features(self, photos: Sequence[np.ndarray]) -> npt.NDArray[np.float32]:
        learned = self.model.feature_spec
        vectors = self.engine.encode(np.concatenate(photos))
        # The decoder learned from stored vectors: the same rounding belongs to them.
        stored = vectors.astype(learned.dtype).astype(np.float32)
        if learned.view_count == 1:
            return stored
        return merge_views(stored.reshape(len(photos), learned.view_count, *stored.shape[1:]))

    def _captions(self, found: list[list[Hypothesis]]) -> list[list[Caption]]:
        return [
            [Caption(self.vocabulary.decode(h.ids), h.log_probability) for h in hypotheses]
            for hypotheses in found
        ]
