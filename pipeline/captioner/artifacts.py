"""Artifacts: what a whole run left, opened and cross-checked in one place."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from pipeline.captioner.generation.settings import SearchSettings, read_search_settings
from pipeline.captioner.model_config import FIX, Member, ModelConfig, read_model_config
from pipeline.captioner.training_artifacts import TrainingArtifacts
from pipeline.captioner.word_detector import WordDetector
from pipeline.errors import InputError
from pipeline.features.feature_spec import EncoderConfig, FeatureSpec, read_encoder_config
from pipeline.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from pipeline.captioner.decoders.decoder import Decoder

# What a photo is captioned with. No caption table and no feature store: a folder with these
# files alone is a captioner.
TO_CAPTION = (
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
        """Whether the caption table is here, to check the other files against."""
        return (self.folder / "captions.parquet").is_file()

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary; of these captions, where they are here."""
        fingerprint = self.table.fingerprint if self.has_captions else None
        return Vocabulary.load(self.folder / "vocabulary.json", fingerprint)

    @cached_property
    def encoder(self) -> EncoderConfig:
        """The encoder's description."""
        return read_encoder_config(self.folder / "encoder.json")

    @cached_property
    def model(self) -> ModelConfig:
        """What model.json describes; checked against vocabulary and captions."""
        path = self.folder / "model" / "model.json"
        model = read_model_config(path, self.vocabulary)
        if self.has_captions and model.metadata.get("captions") != self.table.fingerprint:
            raise InputError(
                f"{path.parent} was trained on other captions, perhaps on the present test "
                f"split, than {self.folder / 'captions.parquet'} holds: {FIX}"
            )
        return model

    @cached_property
    def feature_spec(self) -> FeatureSpec:
        """How the encoder has to make features for the model; checked against encoder.json."""
        learned = self.model.feature_spec
        spec = self.encoder.feature_spec(
            learned.views, learned.pooling, learned.scales, learned.dtype
        )
        self.model.check_feature_spec(spec, self.folder / "encoder.json")
        return spec

    @cached_property
    def detector(self) -> WordDetector:
        """The word detector; checked against vocabulary, captions and the model's features."""
        return WordDetector.load(
            self.folder / "detector.h5",
            self.vocabulary,
            self.model.feature_spec,
            self.model.config.feature_shape[-1],
            self.table.fingerprint if self.has_captions else None,
        )

    @cached_property
    def search(self) -> SearchSettings:
        """The settings that the last evaluation searched with."""
        return read_search_settings(self.folder / "search.json")

    @cached_property
    def decoders(self) -> Sequence["Decoder"]:
        """The trained decoders on Keras, in the order of `train.seeds`."""
        return [self.load_decoder(member) for member in self.model.members]

    def load_decoder(self, member: Member) -> "Decoder":
        """Load one of the trained decoders on Keras."""
        from pipeline.captioner.model_folder import load_member  # noqa: PLC0415  (seconds)

        return load_member(self.folder / "model", self.model, member)

    def check_store(self) -> None:
        """Refuse a feature store that other features are in than the model learned from."""
        self.model.check_feature_spec(self.store.feature_spec, self.store.path)
