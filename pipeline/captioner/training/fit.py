"""Training: a decoder gets better epoch by epoch, is validated, kept and, if killed, resumed."""

import math
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass, field
from typing import Any, ClassVar

import numpy as np

from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.training.batches import Batches
from pipeline.captioner.training.checkpoint import Checkpoint
from pipeline.captioner.training.history import EpochRow
from pipeline.captioner.training.loss import build_eval_model, mean_of

INTERRUPTED = "interrupted"
# Above it a perplexity, its exponential, is no number.
_GREATEST_LOSS = math.log(sys.float_info.max)


class Phase(ABC):
    """What makes a decoder better.

    Attributes:
        row_type: what an epoch of it is told by.
        metric_name: what `train_epoch` returns.
        learning_rate_param: the param to lower if that goes beyond all bounds.
        optimizer: the `keras.optimizers.Optimizer` that it uses.
    """

    row_type: ClassVar[type[EpochRow]]
    metric_name: ClassVar[str]
    learning_rate_param: ClassVar[str]
    optimizer: Any

    @abstractmethod
    def train_epoch(self, epoch: int) -> float:
        """Go through the training captions, or photos, once; `epoch` counts from 1."""


@dataclass
class FitLoop:
    """A decoder's training, from its first epoch or from a checkpoint.

    Attributes:
        decoder: its weights are changed in place.
        phase: how.
        dev: captions to validate with.
        cider_d: returns what the decoder's captions of dev photos score.
        epochs: at most.
        patience: epochs without a better one before stopping.
        select: what makes an epoch better: "cider", validation CIDEr-D, or "loss", validation
            loss.
        select_tolerance: share of the best CIDEr-D that is taken for chance: of two epochs that
            come so near to it, the one with the lower validation loss is the better.
        average_epochs: about how many epochs' weights are averaged to what is validated and kept
            (Polyak and Juditsky 1992, "Acceleration of stochastic approximation by averaging");
            learning goes on from the epoch's own. 1 is no averaging.
        checkpoint: where the state is kept after every epoch.
        after_epoch: called with the history after each epoch, before its state is kept.
        history: the rows so far.
        stopped: why training ended.
    """

    decoder: Decoder
    phase: Phase
    dev: Batches
    cider_d: Callable[[Decoder], float]
    epochs: int
    patience: int
    select: str
    select_tolerance: float
    average_epochs: int
    checkpoint: Checkpoint
    after_epoch: Callable[[Sequence[EpochRow]], None]
    history: list[EpochRow] = field(default_factory=list)
    stopped: str = ""
    _average: list[Any] = field(default_factory=list)
    _best_weights: list[Any] = field(default_factory=list)

    @property
    def best(self) -> EpochRow:
        """The epoch whose weights are kept: of equally good ones the earliest."""
        return self._best_of(self.history)

    @property
    def diverged(self) -> bool:
        """Whether not even the best epoch made a decoder."""
        return not _bounded(self.best)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return self.stopped == INTERRUPTED

    def run(self) -> None:
        """Train to the end, or until Ctrl-C; the decoder is left with its best weights.

        The checkpoint stays, for the caller to remove once the model is safe.

        Raises:
            KeyboardInterrupt: before the first epoch ended, so that nothing is kept.
        """
        self._resume()
        tested = build_eval_model(self.decoder)
        try:
            while not self.stopped:
                self._run_epoch(tested)
        except KeyboardInterrupt:
            if not self.history:
                raise
            self.stopped = INTERRUPTED
        self.decoder.network.set_weights(self._best_weights)

    def _best_of(self, history: Sequence[EpochRow]) -> EpochRow:
        """Return the best epoch, chosen epoch by epoch: only the weights of one are kept."""
        best, greatest = history[0], 0.0
        for epoch in history:
            greatest = max(greatest, self._score(epoch))
            enough = (1 - self.select_tolerance) * greatest
            beaten = self._score(best) < enough or epoch.validation_loss < best.validation_loss
            if beaten and self._score(epoch) >= enough:
                best = epoch
        return best

    def _last_better(self) -> EpochRow:
        """Return the last epoch with a lower loss or a higher score than all before it.

        CIDEr-D of few photos jumps about: alone it would end a training that still learns.
        """
        least = min(self.history, key=lambda epoch: epoch.validation_loss)
        most = max(self.history, key=self._score)
        return max(most, least, key=lambda epoch: epoch.epoch)

    def _score(self, epoch: EpochRow) -> float:
        # Before anything makes sense every caption scores 0; then the loss tells.
        return epoch.validation_cider_d if self.select == "cider" else 0.0

    def _run_epoch(self, tested: Any) -> None:
        number, network = len(self.history) + 1, self.decoder.network
        start = time.monotonic()
        learned = self.phase.train_epoch(number)
        own = network.get_weights()
        share = 1 / min(number, self.average_epochs)
        before = self._average or own
        with np.errstate(invalid="ignore"):  # of what diverged: the loss will tell
            self._average = [(1 - share) * b + share * w for b, w in zip(before, own, strict=True)]
        network.set_weights(self._average)
        validation_loss = mean_of(tested.test_on_batch, self.dev.in_order())
        epoch = self.phase.row_type(number, learned, validation_loss, self.cider_d(self.decoder))
        # Weights first: an interruption between the two finds a best epoch with its weights.
        if self._best_of([*self.history, epoch]) is epoch:
            self._best_weights = self._average
        self.history.append(epoch)
        self._stop_if_due()
        print(
            f"epoch {number}: {self.phase.metric_name} {learned:.4f}, "
            f"validation {validation_loss:.4f}, CIDEr-D {epoch.validation_cider_d:.1f}"
            f"{' (best)' if self.best is epoch else ''}, {time.monotonic() - start:.1f} s",
            flush=True,
        )
        self.after_epoch(self.history)
        network.set_weights(own)
        self._save()

    def _stop_if_due(self) -> None:
        last = self.history[-1]
        if not _bounded(last):
            _, learned, loss, _ = astuple(last)
            self.stopped = (
                f"diverged ({self.phase.metric_name} {learned:.4g}, validation loss {loss:.4g}): "
                f"lower {self.phase.learning_rate_param}"
            )
        elif last.epoch - self._last_better().epoch >= self.patience:
            what = {"cider": "loss or CIDEr-D", "loss": "loss"}[self.select]
            self.stopped = f"no better validation {what} for {self.patience} epochs"
        elif last.epoch >= self.epochs:
            self.stopped = f"all {self.epochs} epochs done"

    def _state(self) -> list[Any]:
        """Every variable that the next epoch depends on, dropout's seeds included."""
        network = self.decoder.network
        return [*network.variables, *self.phase.optimizer.variables]

    def _save(self) -> None:
        arrays = {f"state_{i}": np.asarray(v) for i, v in enumerate(self._state())}
        arrays |= {f"average_{i}": weight for i, weight in enumerate(self._average)}
        arrays |= {f"best_{i}": weight for i, weight in enumerate(self._best_weights)}
        metadata = {"history": [asdict(epoch) for epoch in self.history], "stopped": self.stopped}
        self.checkpoint.save(arrays, metadata)

    def _resume(self) -> None:
        loaded = self.checkpoint.load()
        if loaded is None:
            return
        arrays, metadata = loaded
        for i, variable in enumerate(self._state()):
            variable.assign(arrays[f"state_{i}"])
        count = len(self.decoder.network.get_weights())
        self._average = [arrays[f"average_{i}"] for i in range(count)]
        self._best_weights = [arrays[f"best_{i}"] for i in range(count)]
        self.history = [self.phase.row_type(**row_type) for row_type in metadata["history"]]
        self.stopped = metadata["stopped"]
        print(f"going on after epoch {len(self.history)}", flush=True)


def _bounded(epoch: EpochRow) -> bool:
    return all(map(math.isfinite, astuple(epoch))) and epoch.validation_loss < _GREATEST_LOSS
