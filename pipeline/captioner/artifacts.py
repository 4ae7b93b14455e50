"""Artifacts: the files of a finished run, opened and checked against each other in one place."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from pipeline.captioner.generation.settings import SearchSettings, read_search_settings
from pipeline.captioner.model_config import FIX, Member, ModelConfig, read_model_config
from pipeline.captioner.neighbours import Neighbours
from pipeline.captioner.training_artifacts import TrainingArtifacts
from pipeline.captioner.word_detector import WordDetector
from pipeline.errors import InputError
from pipeline.features.feature_spec import EncoderConfig, FeatureSpec, read_encoder_config
from pipeline.features.store import FeatureStore
from pipeline.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from pipeline.captioner.decoders.decoder import Decoder
    from pipeline.captioner.generation.interfaces import StepDecoder, SupportsUnconditional

# The files that captioning a photo needs. The caption table and the feature store are not among
# them: a folder with these files alone is a complete captioner, and if the search settings use
# neighbours, with neighbours.h5.
CAPTIONER_FILES = (
    "encoder.json",
    "encoder.weights.h5",
    "vocabulary.json",
    "detector.h5",
    "model/model.json",
    "search.json",
)


class Artifacts(TrainingArtifacts):
    """The folder of a finished run; each file is opened once and checked against the others."""

    @cached_property
    def has_captions(self) -> bool:
        """Whether the folder has the caption table, to check the other files against."""
        return (self.folder / "captions.parquet").is_file()

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary, checked against the captions if the folder has them."""
        return Vocabulary.load(self.folder / "vocabulary.json", self._captions_fingerprint)

    @cached_property
    def encoder_config(self) -> EncoderConfig:
        """The contents of encoder.json; the weights are not loaded."""
        return read_encoder_config(self.folder / "encoder.json")

    @cached_property
    def model_config(self) -> ModelConfig:
        """The contents of model.json, checked against the vocabulary and the captions."""
        path = self.folder / "model" / "model.json"
        config = read_model_config(path, self.vocabulary)
        if self._captions_fingerprint not in (None, config.metadata.get("captions")):
            raise InputError(
                f"{path.parent} was trained on other captions than "
                f"{self.folder / 'captions.parquet'} has, perhaps on its test split: {FIX}"
            )
        return config

    def check_training_metadata(self) -> None:
        """Check what reports read of the trainings' metadata in model.json."""
        self.model_config.check_metadata(self.folder / "model" / "model.json")

    @cached_property
    def feature_spec(self) -> FeatureSpec:
        """The spec of the features that the encoder computes, checked against the model."""
        trained = self.model_config.feature_spec
        spec = self.encoder_config.feature_spec(
            trained.views, trained.pooling, trained.scales, trained.dtype
        )
        self.model_config.check_feature_spec(spec, self.folder / "encoder.json")
        return spec

    @cached_property
    def store(self) -> FeatureStore:
        """The photos' features, checked against the model."""
        store = FeatureStore.open(self.folder / "features.h5")
        self.model_config.check_feature_spec(store.feature_spec, store.path)
        return store

    @cached_property
    def detector(self) -> WordDetector:
        """The word detector, checked against the vocabulary, the captions and the model."""
        return WordDetector.load(
            self.folder / "detector.h5",
            self.vocabulary,
            self.model_config.feature_spec,
            self.model_config.decoder.feature_shape[-1],
            self._captions_fingerprint,
        )

    @cached_property
    def neighbours(self) -> Neighbours:
        """The nearest training photos, checked against the vocabulary and the detector."""
        return Neighbours.load(self.folder / "neighbours.h5", self.vocabulary, self.detector)

    @cached_property
    def search_settings(self) -> SearchSettings:
        """The search settings of the last evaluation."""
        return read_search_settings(self.folder / "search.json")

    @cached_property
    def decoders(self) -> Sequence["Decoder"]:
        """The trained decoders, on Keras, in the order of `train.seeds`."""
        return [self.load_decoder(member) for member in self.model_config.members]

    def load_decoder(self, member: Member) -> "Decoder":
        """Load one of the trained decoders, on Keras."""
        from pipeline.captioner.model_folder import load_member  # noqa: PLC0415  (seconds)

        return load_member(self.folder / "model", self.model_config, member)

    def combine_decoders(
        self, settings: SearchSettings, decoders: Sequence["SupportsUnconditional"]
    ) -> "StepDecoder":
        """Combine decoders for a search with these settings, and read what they need."""
        neighbours = self.neighbours if settings.neighbour_rerank_weight else None
        return settings.combine_decoders(decoders, self.detector, neighbours)

    @property
    def _captions_fingerprint(self) -> str | None:
        return self.table.fingerprint if self.has_captions else None
