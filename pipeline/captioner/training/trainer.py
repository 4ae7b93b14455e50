"""The trainer: one decoder per seed, each through one or two phases of training."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
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
from pipeline.metrics.cider import CiderD
from pipeline.metrics.references import References
from pipeline.metrics.tokenizer import tokenize
from pipeline.text.vocabulary import Vocabulary

CROSS_ENTROPY, SELF_CRITICAL = "cross_entropy", "self_critical"  # the phases

AfterEpoch = Callable[[Sequence[EpochRow]], None]


@dataclass(frozen=True)
class TrainingData:
    """What decoders are trained and validated on; every photo in it has features.

    Attributes:
        store: the photos' features.
        vocabulary: the captions' vocabulary.
        captions: split, "train" or "dev", to (image_id, clean text) pairs.
        references: split to image_id to the photo's raw captions.
    """

    store: FeatureStore
    vocabulary: Vocabulary
    captions: Mapping[str, Sequence[tuple[str, str]]]
    references: Mapping[str, Mapping[str, Sequence[str]]]


@dataclass(frozen=True)
class TrainConfig:
    """The first phase: cross-entropy with teacher forcing.

    Attributes:
        decoder: the decoder to build.
        word_vectors: initial embeddings: "random", or "captions": from each word's neighbours
            in the captions.
        output_bias: initial bias of the logits: "zero", or "frequency": the log frequency of
            each word.
        batch_size: captions in a batch.
        max_words: longer captions are cut to so many words.
        optimizer: how weights follow gradients.
        label_smoothing: see `compile_network`.
        condition_dropout: see `CrossEntropy`.
        scheduled_sampling: see `CrossEntropy`.
        epochs: at most.
        patience: see `FitLoop`; the second phase has the same.
        select: see `FitLoop`.
        select_tolerance: see `FitLoop`; the second phase, which raises the loss, has none.
        average_epochs: see `FitLoop`.
        select_beam_width: beam width of the search that captions dev photos, in both phases.
    """

    decoder: DecoderConfig
    word_vectors: str
    output_bias: str
    batch_size: int
    max_words: int
    optimizer: OptimizerConfig
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
    """The second phase, see `SelfCritical`, with at most `epochs` epochs."""

    epochs: int
    samples: int
    batch_size: int
    learning_rate: float


@dataclass(frozen=True)
class TrainResult:
    """The training from one seed.

    Attributes:
        decoder: with its best weights.
        phases: the phases it went through.
        best_phase: the phase that its weights come from.
    """

    decoder: Decoder
    phases: Sequence[FitLoop]
    best_phase: FitLoop

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return any(phase.interrupted for phase in self.phases)

    @property
    def metadata(self) -> dict[str, Any]:
        """How the training went, for model.json."""
        return {
            "epochs": sum(len(phase.history) for phase in self.phases),
            "best": asdict(self.best_phase.best),
            "stopped": self.best_phase.stopped,
        }

    def remove_checkpoints(self) -> None:
        """Remove the checkpoints that a killed training would have resumed from."""
        for phase in self.phases:
            phase.checkpoint.remove()


@dataclass(frozen=True)
class Trainer:
    """Trains decoders that differ in their seeds alone.

    Attributes:
        data: captions and features.
        config: the first phase.
        self_critical: the second phase, or None.
        make_checkpoint: returns the checkpoint of a phase and a seed.
        on_phase_start: called with phase, seed, decoder, and the epochs (with their seeds) that
            earlier seeds had in this phase; returns what to call after each epoch.
    """

    data: TrainingData
    config: TrainConfig
    self_critical: SelfCriticalConfig | None
    make_checkpoint: Callable[[str, int], Checkpoint]
    on_phase_start: Callable[[str, int, Decoder, Sequence[tuple[int, EpochRow]]], AfterEpoch]

    def train(self, seeds: Iterable[int]) -> dict[int, TrainResult]:
        """Train a decoder from each seed, or until Ctrl-C.

        Returns:
            The result of each seed; after Ctrl-C, of those seeds that have weights to keep.

        Raises:
            KeyboardInterrupt: before there was anything to keep.
            InputError: a first phase diverged in its first epoch.
        """
        results: dict[int, TrainResult] = {}
        for seed in seeds:
            try:
                results[seed] = self._train(seed, results)
            except KeyboardInterrupt:
                if not results:
                    raise
                break
            if results[seed].interrupted:
                break
        return results

    def _train(self, seed: int, earlier: Mapping[int, TrainResult]) -> TrainResult:
        # Sets the seeds of Python, NumPy and the backend, so it comes before the first weight.
        keras.utils.set_random_seed(seed)
        batches, config = self._batches("train"), self.config
        decoder = self._initial_decoder(batches)
        phase = CrossEntropy(
            decoder,
            batches,
            config.optimizer,
            config.epochs,
            seed,
            label_smoothing=config.label_smoothing,
            condition_dropout=config.condition_dropout,
            scheduled_sampling=config.scheduled_sampling,
        )
        fit = self._fit(
            decoder,
            phase,
            epochs=config.epochs,
            select=config.select,
            select_tolerance=config.select_tolerance,
            checkpoint=self.make_checkpoint(CROSS_ENTROPY, seed),
            after_epoch=self.on_phase_start(
                CROSS_ENTROPY, seed, decoder, epochs_of(earlier, CrossEntropy)
            ),
        )
        if fit.diverged:
            raise InputError(f"params.yaml: the training {fit.stopped}")
        if self.self_critical is None or fit.interrupted:
            return TrainResult(decoder, [fit], fit)
        return self._train_self_critical(seed, fit, self.self_critical, earlier)

    def _initial_decoder(self, batches: Batches) -> Decoder:
        decoder = build_decoder(self.config.decoder)
        if self.config.decoder.feature_norm == "center":
            set_feature_mean(decoder, self._vectors("train"))
        if self.config.word_vectors == "captions":
            set_word_vectors(decoder, batches.sequences)
        if self.config.output_bias == "frequency":
            set_output_bias(decoder, batches.word_counts(len(self.data.vocabulary)))
        return decoder

    def _train_self_critical(
        self,
        seed: int,
        first: FitLoop,
        config: SelfCriticalConfig,
        earlier: Mapping[int, TrainResult],
    ) -> TrainResult:
        """Train the second phase; keep its weights only where they are better."""
        decoder = first.decoder
        first_weights = decoder.network.get_weights()
        phase = SelfCritical(
            decoder,
            self.data.store,
            self.data.vocabulary,
            list(self.data.references["train"]),
            self._reward,
            samples=config.samples,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            max_words=self.config.max_words,
            seed=seed,
        )
        try:
            second = self._fit(
                decoder,
                phase,
                epochs=config.epochs,
                select="cider",
                select_tolerance=0.0,
                checkpoint=self.make_checkpoint(SELF_CRITICAL, seed),
                after_epoch=self.on_phase_start(
                    SELF_CRITICAL, seed, decoder, epochs_of(earlier, SelfCritical)
                ),
            )
        except KeyboardInterrupt:  # in its first epoch
            decoder.network.set_weights(first_weights)
            first.stopped = INTERRUPTED
            return TrainResult(decoder, [first], first)
        # Luckiest epoch against luckiest epoch: this phase has no tolerance.
        best_of_first = max(row.validation_cider_d for row in first.history)
        if second.best.validation_cider_d > best_of_first:
            return TrainResult(decoder, [first, second], second)
        print("the self-critical phase improved nothing; the first phase's weights are kept")
        decoder.network.set_weights(first_weights)
        return TrainResult(decoder, [first, second], first)

    def _fit(self, decoder: Decoder, phase: Phase, **options: Any) -> FitLoop:
        """Run a phase to its end; `options` are those of `FitLoop` in which phases differ."""
        fit = FitLoop(
            decoder=decoder,
            phase=phase,
            dev=self._batches("dev"),
            cider_d=self._validation.cider_d,
            patience=self.config.patience,
            average_epochs=self.config.average_epochs,
            **options,
        )
        fit.run()
        best = fit.best
        print(
            f"{fit.stopped}; kept epoch {best.epoch}, validation {best.validation_loss:.4f}, "
            f"CIDEr-D {best.validation_cider_d:.1f}"
        )
        return fit

    def _vectors(self, split: str) -> Iterator[npt.NDArray[np.float32]]:
        """Read every photo's vectors once, a few photos at a time: a grid store has gigabytes."""
        ids = list(dict.fromkeys(image_id for image_id, _ in self.data.captions[split]))
        size = self.config.batch_size
        for start in range(0, len(ids), size):
            yield self.data.store.read(ids[start : start + size])

    def _batches(self, split: str) -> Batches:
        return Batches(
            self.data.captions[split],
            self.data.store,
            self.data.vocabulary,
            batch_size=self.config.batch_size,
            max_words=self.config.max_words,
        )

    @cached_property
    def _validation(self) -> Validation:
        """Counts the dev references once, for all seeds and phases."""
        return Validation(
            self.data.store,
            self.data.vocabulary,
            self.data.references["dev"],
            beam_width=self.config.select_beam_width,
            max_words=self.config.max_words,
        )

    @cached_property
    def _reward(self) -> CiderD:
        """Counts the training references once, for all seeds."""
        groups = self.data.references["train"].values()
        return CiderD(References([[tokenize(raw) for raw in group] for group in groups]))


def epochs_of(results: Mapping[int, TrainResult], phase: type[Phase]) -> list[tuple[int, EpochRow]]:
    """Return the epochs of a phase, with their seeds."""
    return [
        (seed, row)
        for seed, result in results.items()
        for fit in result.phases
        if isinstance(fit.phase, phase)
        for row in fit.history
    ]
