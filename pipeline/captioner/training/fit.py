"""The training loop: train an epoch, validate it, save a checkpoint, stop early."""

import math
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, astuple, dataclass, field
from typing import Any, ClassVar

import numpy as np

from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.training.batches import Batches
from pipeline.captioner.training.checkpoint import Checkpoint
from pipeline.captioner.training.history import EpochRow, read_rows
from pipeline.captioner.training.loss import LossModel, mean_over_words
from pipeline.captioner.training.tracing import trace_network, trace_search
from pipeline.progress import Progress

INTERRUPTED = "interrupted"
_PROGRESS_SECONDS = 60.0  # between lines in a log, which has a line for each epoch too
# The perplexity, which is the exponential of the loss, overflows above it.
_MAX_LOSS = math.log(sys.float_info.max)


class Phase(ABC):
    """A training objective, with the data and the optimizer for it.

    Attributes:
        row_type: the class of this phase's history rows.
        metric_name: name of the number that `train_epoch` returns.
        note: why that number differs from its neighbours in a line of progress.
        learning_rate_param: the param to lower if training diverges.
        unit: what `size` counts, in the plural.
        size: number of captions, or photos, in an epoch.
        progress: the display that `train_epoch` advances, if there is one.
        optimizer: the `keras.optimizers.Optimizer`.
    """

    row_type: ClassVar[type[EpochRow]]
    metric_name: ClassVar[str]
    note: ClassVar[str]
    learning_rate_param: ClassVar[str]
    unit: ClassVar[str]
    size: int
    progress: Progress | None = None
    optimizer: Any

    @abstractmethod
    def trace(self) -> None:
        """Trace every function that `train_epoch` runs, see `tracing`; this changes weights."""

    @abstractmethod
    def train_epoch(self, epoch: int) -> float:
        """Train on all captions, or photos, once; `epoch` counts from 1."""

    def advance(self, count: int) -> None:
        """Show that a batch of `count` captions, or photos, is done."""
        if self.progress is not None:
            self.progress.advance(count)


@dataclass
class FitLoop:
    """The training of a decoder in one phase, from its first epoch or from a checkpoint.

    Attributes:
        decoder: its weights are changed in place.
        phase: the training objective.
        dev_batches: captions for the validation loss.
        cider_d: returns the CIDEr-D of the decoder's captions of dev photos.
        epochs: maximum number of epochs.
        patience: stop after this many epochs without improvement.
        select: how the best epoch is selected: "cider", by validation CIDEr-D, or "loss", by
            validation loss.
        select_tolerance: relative difference in CIDEr-D that counts as chance: among epochs
            within this share of the best CIDEr-D, the one with the lowest validation loss is
            the best.
        average_epochs: approximate number of epochs in the moving average of the weights (Polyak
            and Juditsky 1992, "Acceleration of stochastic approximation by averaging"). The
            averaged weights are validated and kept; training continues from the epoch's own
            weights. 1 turns averaging off.
        checkpoint: where the state is saved after each epoch.
        on_epoch_end: called with the history after each epoch, before the checkpoint is saved.
        history: the rows of the epochs so far.
        stop_reason: why training ended; empty while it has not.
    """

    decoder: Decoder
    phase: Phase
    dev_batches: Batches
    cider_d: Callable[[Decoder], float]
    epochs: int
    patience: int
    select: str
    select_tolerance: float
    average_epochs: int
    checkpoint: Checkpoint
    on_epoch_end: Callable[[Sequence[EpochRow]], None]
    history: list[EpochRow] = field(default_factory=list)
    stop_reason: str = ""
    _average_weights: list[Any] = field(default_factory=list)
    _best_weights: list[Any] = field(default_factory=list)

    @property
    def best(self) -> EpochRow:
        """The epoch whose weights are kept; the earliest of equally good ones."""
        return self._select_best(self.history)

    @property
    def rule(self) -> str:
        """How the kept epoch is chosen, in words."""
        if self.select == "loss":
            return "the epoch with the lowest validation loss is kept"
        if not self.select_tolerance:
            return "the epoch with the highest CIDEr-D is kept"
        return (
            "of the epochs whose CIDEr-D is within "
            f"{self.select_tolerance:.0%} of the highest, the one with the lowest validation loss "
            "is kept"
        )

    @property
    def diverged(self) -> bool:
        """Whether even the best epoch has no usable weights."""
        return not _is_finite(self.best)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the training."""
        return self.stop_reason == INTERRUPTED

    def run(self) -> None:
        """Train to the end, or until Ctrl-C; the decoder is left with the best weights.

        The checkpoint stays: the caller removes it once the model is saved.

        Raises:
            KeyboardInterrupt: before the end of the first epoch, so there is nothing to keep.
        """
        eval_model = LossModel(self.decoder)
        self._trace(eval_model)
        self._resume()
        try:
            with self._progress() as self.phase.progress:
                while not self.stop_reason:
                    self._run_epoch(eval_model)
        except KeyboardInterrupt:
            if not self.history:
                raise
            self.stop_reason = INTERRUPTED
        self.decoder.network.set_weights(self._best_weights)

    def _select_best(self, history: Sequence[EpochRow]) -> EpochRow:
        """Return the best epoch.

        The choice is made epoch by epoch, as in training, where only the weights of the best
        epoch so far are in memory.
        """
        best, best_score = history[0], 0.0
        for epoch in history:
            best_score = max(best_score, self._score(epoch))
            threshold = (1 - self.select_tolerance) * best_score
            lower_loss = epoch.validation_loss < best.validation_loss
            is_better = lower_loss or self._score(best) < threshold
            if is_better and self._score(epoch) >= threshold:
                best = epoch
        return best

    def _last_improvement(self) -> EpochRow:
        """Return the last epoch with the lowest loss or the highest score so far.

        CIDEr-D of few photos is noisy: alone it would stop a training that still improves.
        """
        lowest_loss = min(self.history, key=lambda epoch: epoch.validation_loss)
        highest_score = max(self.history, key=self._score)
        return max(highest_score, lowest_loss, key=lambda epoch: epoch.epoch)

    def _score(self, epoch: EpochRow) -> float:
        # While all captions score 0, as in the first epochs, the loss decides.
        return epoch.validation_cider_d if self.select == "cider" else 0.0

    def _progress(self) -> Progress:
        """Return a display of all epochs; few trainings need them all."""
        size = self.phase.size
        title = f"at most {self.epochs} epochs"
        done = len(self.history) * size
        return Progress(title, self.epochs * size, self.phase.unit, _PROGRESS_SECONDS, done=done)

    def _run_epoch(self, eval_model: Any) -> None:
        number, network = len(self.history) + 1, self.decoder.network
        start = time.monotonic()
        train_metric = self.phase.train_epoch(number)
        weights = network.get_weights()
        self._average_weights = self._averaged(weights, number)
        network.set_weights(self._average_weights)
        validation_loss = mean_over_words(eval_model.test_on_batch, self.dev_batches.eval_batches())
        cider_d = self.cider_d(self.decoder)
        epoch = self.phase.row_type(number, train_metric, validation_loss, cider_d)
        # Weights before history: after an interrupt between the two, the best epoch of the
        # history still has its weights.
        if self._select_best([*self.history, epoch]) is epoch:
            self._best_weights = self._average_weights
        self.history.append(epoch)
        self._stop_if_due()
        self._print(
            f"epoch {number}: {self.phase.metric_name} {train_metric:.4f}, "
            f"validation {validation_loss:.4f}, CIDEr-D {cider_d:.1f}"
            f"{' (kept so far)' if self.best is epoch else ''}, {time.monotonic() - start:.1f} s"
        )
        self.on_epoch_end(self.history)
        network.set_weights(weights)
        self._save_checkpoint()

    def _print(self, line: str) -> None:
        """Print a line above the progress bar."""
        with self.phase.progress.hidden() if self.phase.progress else nullcontext():
            print(line, flush=True)

    def _averaged(self, weights: list[Any], epoch: int) -> list[Any]:
        """Return the moving average of the weights: the plain mean of the first epochs."""
        share = 1 / min(epoch, self.average_epochs)
        previous = self._average_weights or weights
        with np.errstate(invalid="ignore"):  # weights that diverged; the loss reveals it
            return [
                (1 - share) * average + share * weight
                for average, weight in zip(previous, weights, strict=True)
            ]

    def _stop_if_due(self) -> None:
        last = self.history[-1]
        if not _is_finite(last):
            _, train_metric, loss, _ = astuple(last)
            self.stop_reason = (
                f"diverged ({self.phase.metric_name} {train_metric:.4g}, validation loss "
                f"{loss:.4g}): lower {self.phase.learning_rate_param}"
            )
        elif last.epoch - self._last_improvement().epoch >= self.patience:
            criterion = {"cider": "loss or CIDEr-D", "loss": "loss"}[self.select]
            self.stop_reason = f"no better validation {criterion} for {self.patience} epochs"
        elif last.epoch >= self.epochs:
            self.stop_reason = f"all {self.epochs} epochs done"

    def _trace(self, eval_model: Any) -> None:
        """Trace every function of the loop, so that a resumed training computes the same bits."""
        initial_state = [np.array(variable) for variable in self._state()]
        self.phase.trace()
        trace_network(self.decoder, lambda x, y, _: eval_model.test_on_batch(x, y))
        trace_search(self.decoder)
        for variable, value in zip(self._state(), initial_state, strict=True):
            variable.assign(value)

    def _state(self) -> list[Any]:
        """Every variable that the next epoch depends on, including the seeds of dropout."""
        network = self.decoder.network
        return [*network.variables, *self.phase.optimizer.variables]

    def _save_checkpoint(self) -> None:
        arrays = {f"state_{i}": np.asarray(v) for i, v in enumerate(self._state())}
        arrays |= {f"average_{i}": weight for i, weight in enumerate(self._average_weights)}
        arrays |= {f"best_{i}": weight for i, weight in enumerate(self._best_weights)}
        history = [asdict(epoch) for epoch in self.history]
        self.checkpoint.save(arrays, {"history": history})

    def _resume(self) -> None:
        loaded = self.checkpoint.load()
        if loaded is None:
            return
        arrays, metadata = loaded
        variables, weights = self._state(), self.decoder.network.get_weights()
        try:
            history = read_rows(metadata["history"], self.phase.row_type)
            finite = _is_finite(history[-1])
            state = _read_arrays(arrays, "state", variables, finite=finite)
            average = _read_arrays(arrays, "average", weights, finite=finite)
            best = _read_arrays(arrays, "best", weights, finite=finite)
        except (KeyError, TypeError, ValueError) as error:
            self.checkpoint.set_aside(error)
            return
        for variable, array in zip(variables, state, strict=True):
            variable.assign(array)
        self._average_weights, self._best_weights, self.history = average, best, history
        self._stop_if_due()
        print(f"resuming after epoch {len(self.history)}", flush=True)


def _read_arrays(
    arrays: Mapping[str, Any], name: str, templates: Sequence[Any], *, finite: bool
) -> list[Any]:
    """Return the arrays of a checkpoint that are called `name`, one like each template.

    Args:
        arrays: the checkpoint's arrays.
        name: prefix of the arrays' names.
        templates: arrays, or variables, of the expected shapes and types.
        finite: whether all numbers must be finite: the training has not diverged.

    Raises:
        KeyError: an array is missing.
        ValueError: an array is not like its template, or not finite.
    """
    result = [arrays[f"{name}_{i}"] for i in range(len(templates))]
    for i, (array, template) in enumerate(zip(result, map(np.asarray, templates), strict=True)):
        if (array.shape, array.dtype) != (template.shape, template.dtype):
            raise ValueError(f"{name}_{i} has another shape or type")
        if finite and not np.isfinite(array).all():
            raise ValueError(f"{name}_{i} is not finite")
    return result


def _is_finite(epoch: EpochRow) -> bool:
    return all(map(math.isfinite, astuple(epoch))) and epoch.validation_loss < _MAX_LOSS
