"""The curriculum: from each seed a decoder goes through one phase of training, or two."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.backend import keras
from pipeline.captioner.decoders.decoder import Decoder, build_decoder
from pipeline.captioner.model_config import DecoderConfig
from pipeline.captioner.training.batches import Batches
from pipeline.captioner.training.checkpoint import Checkpoint
from pipeline.captioner.training.cross_entropy import CrossEntropy
from pipeline.captioner.training.fit import INTERRUPTED, FitLoop, Phase
from pipeline.captioner.training.history import EpochRow
from pipeline.captioner.training.initialization import (
    set_feature_mean,
    set_output_bias,
    set_word_vectors,
)
from pipeline.captioner.training.optimizer import OptimizerConfig
from pipeline.captioner.training.self_critical import SelfCritical
from pipeline.captioner.training.validation import Validation
from pipeline.errors import InputError
from pipeline.features.store import FeatureStore
from pipeline.text.vocabulary import Vocabulary

# The phases, and the tables of their epochs.
CROSS_ENTROPY, SELF_CRITICAL = "history", "self_critical"


@dataclass(frozen=True)
class TrainingData:
    """What decoders learn from; every photo of it has features.

    Attributes:
        store: features of the photos.
        vocabulary: of the captions.
        captions: split, "train" or "dev", to (image_id, clean text) pairs.
        references: split to image_id to the photo's captions as people wrote them.
    """

    store: FeatureStore
    vocabulary: Vocabulary
    captions: Mapping[str, Sequence[tuple[str, str]]]
    references: Mapping[str, Mapping[str, Sequence[str]]]


@dataclass(frozen=True)
class TrainConfig:
    """The first phase, by teacher forcing.

    Attributes:
        decoder: what is trained.
        word_vectors: "captions": words begin with vectors from their neighbours; or "random".
        output_bias: "frequency": words begin as likely as they are frequent; or "zero".
        batch_size: captions.
        max_words: of a caption; longer ones teach their first words only.
        optimization: how weights follow gradients.
        label_smoothing: see `compile_network`.
        condition_dropout: see `CrossEntropy`.
        scheduled_sampling: see `CrossEntropy`.
        epochs: at most.
        patience: see `FitLoop`; that of the second phase too.
        select: see `FitLoop`.
        select_tolerance: see `FitLoop`; the second phase, which raises the loss, has none.
        average_epochs: see `FitLoop`.
        select_beam_width: of the search for captions of dev photos, in both phases.
    """

    decoder: DecoderConfig
    word_vectors: str
    output_bias: str
    batch_size: int
    max_words: int
    optimization: OptimizerConfig
    label_smoothing: float
    condition_dropout: float
    scheduled_sampling: float
    epochs: int
    patience: int
    select: str
    select_tolerance: float
    average_epochs: int
    select_beam_width: int


@dataclass(frozen=True)
class SelfCriticalConfig:
    """The second phase, see `SelfCritical`; of at most `epochs` epochs."""

    epochs: int
    samples: int
    batch_size: int
    learning_rate: float


@dataclass(frozen=True)
class TrainResult:
    """What became of one seed.

    Attributes:
        decoder: with its best weights.
        trainings: the phases that it went through.
        kept: the one that its weights are of.
    """

    decoder: Decoder
    trainings: Sequence[FitLoop]
    kept: FitLoop

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return any(training.interrupted for training in self.trainings)

    @property
    def facts(self) -> dict[str, Any]:
        """How it went, for model.json."""
        return {
            "epochs": sum(len(training.history) for training in self.trainings),
            "best": asdict(self.kept.best),
            "stopped": self.kept.stopped,
        }

    def remove_checkpoints(self) -> None:
        """Remove what a killed training would have gone on from."""
        for training in self.trainings:
            training.checkpoint.remove()


@dataclass(frozen=True)
class Lesson:
    """A phase of one seed, about to begin.

    Attributes:
        phase: TAUGHT or CRITICIZED.
        seed: of the decoder.
        decoder: which learns.
        earlier: the epochs of this phase of the seeds before, with their seeds.
    """

    phase: str
    seed: int
    decoder: Decoder
    earlier: Sequence[tuple[int, EpochRow]]


@dataclass(frozen=True)
class Trainer:
    """Trains decoders that differ in their seeds alone.

    Attributes:
        material: what they learn from.
        teaching: the first phase.
        criticism: the second; None is no second.
        checkpoint: names the checkpoint of a phase and a seed.
        on_phase_start: told of each lesson; returns what to call after each of its epochs.
    """

    material: TrainingData
    teaching: TrainConfig
    criticism: SelfCriticalConfig | None
    checkpoint: Callable[[str, int], Checkpoint]
    on_phase_start: Callable[[Lesson], Callable[[Sequence[EpochRow]], None]]

    def train(self, seeds: Iterable[int]) -> dict[int, TrainResult]:
        """Train a decoder from each seed, or until Ctrl-C.

        Returns:
            What became of each seed; after Ctrl-C, of those that have something to keep.

        Raises:
            KeyboardInterrupt: before there was anything to keep.
            InputError: the first phase of one diverged in its first epoch.
        """
        apprentices: dict[int, TrainResult] = {}
        for seed in seeds:
            try:
                apprentices[seed] = self._train(seed, apprentices)
            except KeyboardInterrupt:
                if not apprentices:
                    raise
                break
            if apprentices[seed].interrupted:
                break
        return apprentices

    def _train(self, seed: int, earlier: Mapping[int, TrainResult]) -> TrainResult:
        # Sets the seeds of Python, NumPy and the backend, so it comes before the first weight.
        keras.utils.set_random_seed(seed)
        train, teaching = self._batches("train"), self.teaching
        decoder = self._begin(train)
        phase = CrossEntropy(
            decoder,
            train,
            teaching.optimization,
            teaching.epochs,
            seed,
            label_smoothing=teaching.label_smoothing,
            condition_dropout=teaching.condition_dropout,
            scheduled_sampling=teaching.scheduled_sampling,
        )
        lesson = Lesson(CROSS_ENTROPY, seed, decoder, epochs_of(earlier, CrossEntropy))
        taught = self._run(
            lesson, phase, teaching.epochs, teaching.select, teaching.select_tolerance
        )
        if taught.diverged:
            raise InputError(f"params.yaml: the training {taught.stopped}")
        if self.criticism is None or taught.interrupted:
            return TrainResult(decoder, [taught], taught)
        return self._criticize(seed, taught, self.criticism, earlier)

    def _begin(self, train: Batches) -> Decoder:
        decoder = build_decoder(self.teaching.decoder)
        if self.teaching.decoder.feature_norm == "center":
            set_feature_mean(decoder, self._vectors("train"))
        if self.teaching.word_vectors == "captions":
            set_word_vectors(decoder, train.sequences)
        if self.teaching.output_bias == "frequency":
            set_output_bias(decoder, train.word_counts(len(self.material.vocabulary)))
        return decoder

    def _criticize(
        self,
        seed: int,
        taught: FitLoop,
        criticism: SelfCriticalConfig,
        earlier: Mapping[int, TrainResult],
    ) -> TrainResult:
        """Go through the second phase; keep what it made only where that is better."""
        decoder = taught.decoder
        before = decoder.network.get_weights()
        phase = SelfCritical(
            decoder,
            self.material.store,
            self.material.vocabulary,
            self.material.references["train"],
            samples=criticism.samples,
            batch_size=criticism.batch_size,
            learning_rate=criticism.learning_rate,
            max_words=self.teaching.max_words,
            seed=seed,
        )
        lesson = Lesson(SELF_CRITICAL, seed, decoder, epochs_of(earlier, SelfCritical))
        try:
            criticized = self._run(lesson, phase, criticism.epochs, "cider", 0.0)
        except KeyboardInterrupt:  # in its first epoch
            decoder.network.set_weights(before)
            taught.stopped = INTERRUPTED
            return TrainResult(decoder, [taught], taught)
        # The luckiest epoch against the luckiest: this phase has no tolerance.
        before_it = max(row.validation_cider_d for row in taught.history)
        if criticized.best.validation_cider_d > before_it:
            return TrainResult(decoder, [taught, criticized], criticized)
        print("the second phase made nothing better: kept is what the first one did")
        decoder.network.set_weights(before)
        return TrainResult(decoder, [taught, criticized], taught)

    def _run(
        self, lesson: Lesson, phase: Phase, epochs: int, select: str, tolerance: float
    ) -> FitLoop:
        training = FitLoop(
            decoder=lesson.decoder,
            phase=phase,
            dev=self._batches("dev"),
            cider_d=self._validation().cider_d,
            epochs=epochs,
            patience=self.teaching.patience,
            select=select,
            select_tolerance=tolerance,
            average_epochs=self.teaching.average_epochs,
            checkpoint=self.checkpoint(lesson.phase, lesson.seed),
            after_epoch=self.on_phase_start(lesson),
        )
        training.run()
        best = training.best
        print(
            f"{training.stopped}; kept epoch {best.epoch}, validation {best.validation_loss:.4f}, "
            f"CIDEr-D {best.validation_cider_d:.1f}"
        )
        return training

    def _vectors(self, split: str) -> Iterator[npt.NDArray[np.float32]]:
        """Read the vectors of every photo once, few at a time: a grid store is of gigabytes."""
        ids = list(dict.fromkeys(image_id for image_id, _ in self.material.captions[split]))
        size = self.teaching.batch_size
        for start in range(0, len(ids), size):
            yield self.material.store.read(ids[start : start + size])

    def _batches(self, split: str) -> Batches:
        return Batches(
            self.material.captions[split],
            self.material.store,
            self.material.vocabulary,
            batch_size=self.teaching.batch_size,
            max_words=self.teaching.max_words,
        )

    def _validation(self) -> Validation:
        return Validation(
            self.material.store,
            self.material.vocabulary,
            self.material.references["dev"],
            beam_width=self.teaching.select_beam_width,
            max_words=self.teaching.max_words,
        )


def epochs_of(
    apprentices: Mapping[int, TrainResult], phase: type[Phase]
) -> list[tuple[int, EpochRow]]:
    """Return the epochs of a phase, with their seeds."""
    return [
        (seed, row)
        for seed, apprentice in apprentices.items()
        for training in apprentice.trainings
        if isinstance(training.phase, phase)
        for row in training.history
    ]
