"""The trainer: trains a decoder from each seed, in one or two phases."""

import math
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

_SHORT_CAPTION = 8  # words; longer ones need more memory than `TrainConfig.memory` says

EpochCallback = Callable[[Sequence[EpochRow]], None]


@dataclass(frozen=True)
class TrainingData:
    """The data that decoders are trained and validated on; every photo in it has features.

    Attributes:
        store: the photos' features.
        vocabulary: the captions' vocabulary.
        captions: for "train" and "dev", the (image_id, clean text) pairs.
        references: for "train" and "dev", image_id to the photo's raw captions.
    """

    store: FeatureStore
    vocabulary: Vocabulary
    captions: Mapping[str, Sequence[tuple[str, str]]]
    references: Mapping[str, Mapping[str, Sequence[str]]]


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the first phase, cross-entropy with teacher forcing.

    Attributes:
        decoder: the architecture to build.
        word_vectors: initial word embeddings: "random", or "captions", from each word's
            neighbours in the captions.
        output_bias: initial bias of the logits: "zero", or "frequency", the words' log
            frequencies.
        batch_size: captions in a batch.
        max_words: only this many words of a longer caption are used.
        optimizer: settings of the optimizer.
        label_smoothing: see `LossModel`.
        condition_dropout: see `CrossEntropy`.
        scheduled_sampling: see `CrossEntropy`.
        epochs: maximum number of epochs.
        patience: see `FitLoop`; applies to the second phase too.
        select: see `FitLoop`.
        select_tolerance: see `FitLoop`; the second phase, in which the loss rises, has none.
        average_epochs: see `FitLoop`; applies to the second phase too.
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

    def memory(self, caption_count: int) -> int:
        """Return about how many bytes a training on this number of captions needs."""
        decoder = self.decoder
        vocabulary, units = decoder.vocabulary_size, decoder.units
        positions = math.prod(decoder.feature_shape[:-1])
        weights = (
            vocabulary * (decoder.embedding_size + units)
            + 4 * units * (decoder.embedding_size + 2 * units)
            + units * (decoder.feature_shape[-1] + positions * decoder.spatial_residual_size)
        )
        features = math.prod(decoder.feature_shape)
        rows = min(self.batch_size, caption_count)
        # The weights with their gradients, Adam's two moments, their mean and their best, and a
        # copy of the last two; a batch's features, and logits of a short caption with gradients.
        numbers = 8 * weights + rows * (2 * features + 3 * _SHORT_CAPTION * vocabulary)
        return numbers * np.float32().nbytes


@dataclass(frozen=True)
class SelfCriticalConfig:
    """Settings of the second phase.

    Attributes:
        epochs: maximum number of epochs.
        samples: see `SelfCritical`.
        batch_size: see `SelfCritical`.
        learning_rate: see `SelfCritical`.
    """

    epochs: int
    samples: int
    batch_size: int
    learning_rate: float


@dataclass(frozen=True)
class TrainResult:
    """The result of training from one seed.

    Attributes:
        decoder: the decoder with its best weights.
        phases: the phases that were run.
        best_phase: the phase that the weights come from.
    """

    decoder: Decoder
    phases: Sequence[FitLoop]
    best_phase: FitLoop

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the training."""
        return any(phase.interrupted for phase in self.phases)

    @property
    def metadata(self) -> dict[str, Any]:
        """Metadata of this training for model.json."""
        return {
            "epochs": sum(len(phase.history) for phase in self.phases),
            "best": asdict(self.best_phase.best),
            "stopped": self.best_phase.stop_reason,
        }

    def remove_checkpoints(self) -> None:
        """Remove the checkpoints: they are not needed once the model is saved."""
        for phase in self.phases:
            phase.checkpoint.remove()


@dataclass(frozen=True)
class Trainer:
    """Trains decoders that differ only in their seeds.

    Attributes:
        data: captions and features.
        config: settings of the first phase.
        self_critical: settings of the second phase; None skips it.
        make_checkpoint: returns the checkpoint for a phase and a seed.
        on_phase_start: called with the phase, the seed, the decoder, and this phase's epochs of
            earlier seeds; returns the function to call after each epoch.
    """

    data: TrainingData
    config: TrainConfig
    self_critical: SelfCriticalConfig | None
    make_checkpoint: Callable[[str, int], Checkpoint]
    on_phase_start: Callable[[str, int, Decoder, Sequence[tuple[int, EpochRow]]], EpochCallback]

    def train(self, seeds: Iterable[int]) -> dict[int, TrainResult]:
        """Train a decoder from each seed, until all are done or Ctrl-C is pressed.

        Returns:
            The result of each seed; after Ctrl-C, only of the seeds that have weights to keep.

        Raises:
            KeyboardInterrupt: before there were weights to keep.
            InputError: the first phase of a seed diverged in its first epoch.
        """
        results: dict[int, TrainResult] = {}
        for seed in seeds:
            try:
                results[seed] = self._train_seed(seed, results)
            except KeyboardInterrupt:
                if not results:
                    raise
                break
            if results[seed].interrupted:
                break
        return results

    def _train_seed(self, seed: int, earlier: Mapping[int, TrainResult]) -> TrainResult:
        # Seeds Python, NumPy and the backend; must come before the first weight is drawn.
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
        fit = self._run_phase(
            decoder,
            phase,
            epochs=config.epochs,
            select=config.select,
            select_tolerance=config.select_tolerance,
            checkpoint=self.make_checkpoint(CROSS_ENTROPY, seed),
            on_epoch_end=self.on_phase_start(
                CROSS_ENTROPY, seed, decoder, phase_history(earlier, CrossEntropy)
            ),
        )
        if fit.diverged:
            raise InputError(f"params.yaml: the training {fit.stop_reason}")
        if self.self_critical is None or fit.interrupted:
            return TrainResult(decoder, [fit], fit)
        return self._train_self_critical(seed, fit, self.self_critical, earlier)

    def _initial_decoder(self, batches: Batches) -> Decoder:
        decoder = build_decoder(self.config.decoder)
        if self.config.decoder.feature_norm == "center":
            set_feature_mean(decoder, self._feature_chunks("train"))
        if self.config.word_vectors == "captions":
            set_word_vectors(decoder, batches.sequences)
        if self.config.output_bias == "frequency":
            set_output_bias(decoder, batches.target_counts(len(self.data.vocabulary)))
        return decoder

    def _train_self_critical(
        self,
        seed: int,
        first: FitLoop,
        config: SelfCriticalConfig,
        earlier: Mapping[int, TrainResult],
    ) -> TrainResult:
        """Run the second phase; keep its weights only if they score better than the first's."""
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
            second = self._run_phase(
                decoder,
                phase,
                epochs=config.epochs,
                select="cider",
                select_tolerance=0.0,
                checkpoint=self.make_checkpoint(SELF_CRITICAL, seed),
                on_epoch_end=self.on_phase_start(
                    SELF_CRITICAL, seed, decoder, phase_history(earlier, SelfCritical)
                ),
            )
        except KeyboardInterrupt:  # in its first epoch
            decoder.network.set_weights(first_weights)
            first.stop_reason = INTERRUPTED
            return TrainResult(decoder, [first], first)
        # The best epoch of each phase by CIDEr-D alone: the second phase has no tolerance.
        best_of_first = max(row.validation_cider_d for row in first.history)
        if not second.diverged and second.best.validation_cider_d > best_of_first:
            return TrainResult(decoder, [first, second], second)
        print("the self-critical phase brought no improvement; the first phase's weights are kept")
        decoder.network.set_weights(first_weights)
        return TrainResult(decoder, [first, second], first)

    def _run_phase(self, decoder: Decoder, phase: Phase, **options: Any) -> FitLoop:
        """Run a phase to its end; `options` are the settings of `FitLoop` that differ by phase."""
        fit = FitLoop(
            decoder=decoder,
            phase=phase,
            dev_batches=self._batches("dev"),
            cider_d=self._validation.cider_d,
            patience=self.config.patience,
            average_epochs=self.config.average_epochs,
            **options,
        )
        print(f"{phase.note}{fit.rule}", flush=True)
        fit.run()
        best = fit.best
        print(
            f"{fit.stop_reason}; kept epoch {best.epoch}, validation {best.validation_loss:.4f}, "
            f"CIDEr-D {best.validation_cider_d:.1f}"
        )
        return fit

    def _feature_chunks(self, split: str) -> Iterator[npt.NDArray[np.float32]]:
        """Read each photo's features once, in chunks: the features of a grid take gigabytes."""
        image_ids = list(dict.fromkeys(image_id for image_id, _ in self.data.captions[split]))
        size = self.config.batch_size
        for start in range(0, len(image_ids), size):
            yield self.data.store.read(image_ids[start : start + size])

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
        """Validation with the dev references, which are counted once for all seeds and phases."""
        return Validation(
            self.data.store,
            self.data.vocabulary,
            self.data.references["dev"],
            beam_width=self.config.select_beam_width,
            max_words=self.config.max_words,
        )

    @cached_property
    def _reward(self) -> CiderD:
        """CIDEr-D against the training references, which are counted once for all seeds."""
        groups = self.data.references["train"].values()
        return CiderD(References([[tokenize(raw) for raw in group] for group in groups]))


def phase_history(
    results: Mapping[int, TrainResult], phase: type[Phase]
) -> list[tuple[int, EpochRow]]:
    """Return the epochs of a phase from all seeds, each with its seed."""
    return [
        (seed, row)
        for seed, result in results.items()
        for fit in result.phases
        if isinstance(fit.phase, phase)
        for row in fit.history
    ]
