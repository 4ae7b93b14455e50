import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.training.batches import Batch, Batches
from pipeline.captioner.training.checkpoint import Checkpoint
from pipeline.captioner.training.cross_entropy import CrossEntropy
from pipeline.captioner.training.fit import FitLoop
from pipeline.captioner.training.history import Epoch, EpochRow
from pipeline.captioner.training.optimizer import OptimizerConfig
from pipeline.captioner.training.validation import Validation
from pipeline.text.vocabulary import PAD
from tests.support.captioner import (
    CAPTIONS,
    SAME_LENGTH_CAPTIONS,
    SAME_LENGTH_DEV_CAPTIONS,
    Killed,
    log_softmax,
    make_batches,
    make_decoder,
    make_store,
    make_vocabulary,
    sequence_logits,
    weight_bytes,
)

Weights = list[Any]


def ignore(_: Sequence[EpochRow]) -> None:
    """Stand where a diary would."""


def make_training(
    folder: Path,
    *,
    seed: int = 1,
    dropout: float = 0.5,
    learning_rate: float = 0.01,
    epochs: int = 4,
    patience: int = 9,
    select: str = "loss",
    select_tolerance: float = 0.0,
    average_epochs: int = 3,
    cider_d: Callable[[Decoder], float] = lambda _: 0.0,
    after_epoch: Callable[[Sequence[EpochRow]], None] = ignore,
    captions: Sequence[tuple[str, str]] = SAME_LENGTH_CAPTIONS,
) -> FitLoop:
    store = make_store(folder / "features.h5")
    decoder = make_decoder(seed=seed, dropout=dropout)
    train = make_batches(store, captions)
    return FitLoop(
        decoder=decoder,
        phase=CrossEntropy(decoder, train, OptimizerConfig(learning_rate), epochs, seed=5),
        dev=make_batches(store, SAME_LENGTH_DEV_CAPTIONS),
        cider_d=cider_d,
        epochs=epochs,
        patience=patience,
        select=select,
        select_tolerance=select_tolerance,
        average_epochs=average_epochs,
        checkpoint=Checkpoint(folder, "fingerprint"),
        after_epoch=after_epoch,
    )


def losses(training: FitLoop) -> list[float]:
    return [epoch.loss for epoch in training.history if isinstance(epoch, Epoch)]


def captions_of(training: FitLoop) -> Batches:
    assert isinstance(training.phase, CrossEntropy)
    return training.phase.captions


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> FitLoop:
    """Train for four epochs without a pause."""
    training = make_training(tmp_path_factory.mktemp("whole"))
    training.run()
    return training


def test_the_decoder_learns(whole: FitLoop) -> None:
    assert [epoch.epoch for epoch in whole.history] == [1, 2, 3, 4]
    assert losses(whole)[-1] < losses(whole)[0]
    assert whole.stopped == "all 4 epochs done"
    assert not whole.interrupted


def test_equal_seeds_and_data_give_equal_weights(whole: FitLoop, tmp_path: Path) -> None:
    again = make_training(tmp_path)
    again.run()
    assert again.history == whole.history
    assert weight_bytes(again.decoder) == weight_bytes(whole.decoder)


@pytest.mark.parametrize("saved", [False, True], ids=["before its state is kept", "after"])
def test_a_killed_training_goes_on_to_the_very_same_end(
    whole: FitLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: bool
) -> None:
    def kill(history: Sequence[EpochRow]) -> None:
        if len(history) == 3:
            raise Killed

    killed = make_training(tmp_path, after_epoch=ignore if saved else kill)
    if saved:
        save = killed.checkpoint.save

        def save_and_kill(arrays: dict[str, Any], metadata: dict[str, Any]) -> None:
            save(arrays, metadata)
            kill(killed.history)

        monkeypatch.setattr(killed.checkpoint, "save", save_and_kill)
    with pytest.raises(Killed):
        killed.run()
    seen: list[int] = []
    # Other initial weights and other seeds of dropout: all has to come from the checkpoint.
    resumed = make_training(tmp_path, seed=2, after_epoch=lambda history: seen.append(len(history)))
    resumed.run()
    assert seen == ([4] if saved else [3, 4])
    assert resumed.history == whole.history
    assert resumed.stopped == whole.stopped
    assert weight_bytes(resumed.decoder) == weight_bytes(whole.decoder)


def test_a_training_killed_after_its_end_is_not_trained_again(
    whole: FitLoop, tmp_path: Path
) -> None:
    shutil.copytree(whole.checkpoint.folder, Checkpoint(tmp_path, "fingerprint").folder)
    seen: list[int] = []
    again = make_training(tmp_path, seed=2, after_epoch=lambda history: seen.append(len(history)))
    again.run()
    assert seen == []
    assert again.history == whole.history
    assert weight_bytes(again.decoder) == weight_bytes(whole.decoder)


def test_a_damaged_checkpoint_starts_the_training_anew(whole: FitLoop, tmp_path: Path) -> None:
    training = make_training(tmp_path, epochs=1)
    training.checkpoint.save({"state_0": np.zeros(3)}, {})
    (training.checkpoint.folder / "state.npz").write_bytes(b"PK")
    training.run()
    assert training.history == whole.history[:1]


def test_an_interrupted_training_keeps_its_best_epoch(whole: FitLoop, tmp_path: Path) -> None:
    def interrupt(history: Sequence[EpochRow]) -> None:
        if len(history) == 2:
            raise KeyboardInterrupt

    training = make_training(tmp_path, after_epoch=interrupt)
    training.run()
    assert training.interrupted
    assert training.history == whole.history[:2]
    assert training.checkpoint.load() is not None
    assert validation_loss(training) == pytest.approx(training.best.validation_loss, abs=1e-5)


class InterruptedBatches(Batches):
    """Ctrl-C in the middle of an epoch."""

    epoch = 0

    def shuffled(self, seed: int, epoch: int) -> Iterator[Batch]:
        for number, batch in enumerate(super().shuffled(seed, epoch)):
            if epoch == self.epoch and number == 1:
                raise KeyboardInterrupt
            yield batch


@pytest.mark.parametrize("epoch", [1, 3])
def test_an_interrupt_amid_an_epoch(whole: FitLoop, tmp_path: Path, epoch: int) -> None:
    training = make_training(tmp_path)
    captions_of(training).__class__ = InterruptedBatches
    captions_of(training).epoch = epoch  # type: ignore[attr-defined]
    if epoch == 1:
        with pytest.raises(KeyboardInterrupt):
            training.run()
        assert training.checkpoint.load() is None
        return
    training.run()
    assert training.interrupted
    assert training.history == whole.history[:2]
    assert validation_loss(training) == pytest.approx(training.best.validation_loss, abs=1e-5)
    # And from there it goes on as if nothing had been.
    resumed = make_training(tmp_path)
    resumed.run()
    assert resumed.history == whole.history
    assert weight_bytes(resumed.decoder) == weight_bytes(whole.decoder)


def test_it_stops_early_and_keeps_the_best_epochs_weights(tmp_path: Path) -> None:
    kept: list[Weights] = []
    training = make_training(
        tmp_path,
        learning_rate=0.3,
        epochs=30,
        patience=2,
        after_epoch=lambda _: kept.append(training.decoder.network.get_weights()),
    )
    training.run()
    found_losses = [epoch.validation_loss for epoch in training.history]
    best = int(np.argmin(found_losses))
    assert len(found_losses) == best + 3 < 30
    assert training.best == training.history[best]
    assert training.stopped == "no better validation loss for 2 epochs"
    found = training.decoder.network.get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(found, kept[best], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(found, kept[-1], strict=True))


def negative_log_likelihoods(decoder: Decoder, batches: Batches) -> list[float]:
    """Return one a word, padding left out, dropout off."""
    found = []
    for batch in batches.in_order():
        scores = log_softmax(sequence_logits(decoder, batch.features, batch.inputs))
        for row, targets in zip(scores, batch.targets, strict=True):
            found += [-float(row[i, word]) for i, word in enumerate(targets) if word != PAD]
    return found


def validation_loss(training: FitLoop) -> float:
    return float(np.mean(negative_log_likelihoods(training.decoder, training.dev)))


def test_losses_are_the_mean_over_words_whatever_batch_they_are_in(tmp_path: Path) -> None:
    # With hardly any learning rate and without dropout, the training loss is that of the
    # initial weights; ten captions of two to seven targets make three uneven batches.
    training = make_training(
        tmp_path, epochs=1, learning_rate=1e-12, dropout=0.0, captions=CAPTIONS
    )
    before = negative_log_likelihoods(training.decoder, captions_of(training))
    training.run()
    words = sum(len(text.split()) + 1 for _, text in CAPTIONS)
    assert len(before) == words
    batches = [len(b.inputs) * b.inputs.shape[1] for b in captions_of(training).in_order()]
    assert sum(batches) > words  # some of it is padding
    assert losses(training)[0] == pytest.approx(np.mean(before), abs=1e-5)
    assert training.history[0].validation_loss == pytest.approx(validation_loss(training), abs=1e-5)


def test_the_validation_loss_is_that_of_the_kept_weights(whole: FitLoop) -> None:
    assert validation_loss(whole) == pytest.approx(whole.best.validation_loss, abs=1e-5)


def test_a_loss_that_is_no_number_stops_and_keeps_the_best_epoch(
    whole: FitLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = make_training(tmp_path, cider_d=captioned(tmp_path))
    network, train_epoch = training.decoder.network, training.phase.train_epoch

    def spoil(epoch: int) -> float:
        if epoch == 3:
            network.set_weights([weight * np.nan for weight in network.get_weights()])
        return train_epoch(epoch)

    monkeypatch.setattr(training.phase, "learn", spoil)
    training.run()
    assert training.stopped == (
        "diverged (loss nan, validation loss nan): lower train.learning_rate"
    )
    assert not training.diverged
    assert [epoch.epoch for epoch in training.history] == [1, 2, 3]
    assert losses(training)[:2] == losses(whole)[:2]
    assert training.best in training.history[:2]
    assert all(np.isfinite(w).all() for w in training.decoder.network.get_weights())


def captioned(folder: Path) -> Callable[[Decoder], float]:
    """Return what captions dev photos and scores them, as a stage does."""
    store = make_store(folder / "dev.h5")
    return Validation(store, make_vocabulary(), {"0.jpg": ["a dog"]}, 3, max_words=6).cider_d


@pytest.mark.parametrize("learning_rate", [1e38, 1e4], ids=["no number", "beyond all bounds"])
def test_a_loss_that_never_meant_anything_is_told(tmp_path: Path, learning_rate: float) -> None:
    training = make_training(
        tmp_path, learning_rate=learning_rate, average_epochs=1, cider_d=captioned(tmp_path)
    )
    training.run()
    assert training.diverged
    assert len(training.history) == 1
    assert re.fullmatch(r"diverged \(loss .+\): lower train\.learning_rate", training.stopped)


def test_the_epoch_with_the_best_captions_is_kept_if_asked(tmp_path: Path) -> None:
    scores = iter([0.0, 30.0, 20.0, 30.0])
    training = make_training(tmp_path, select="cider", cider_d=lambda _: next(scores))
    kept: list[bytes] = []
    training.after_epoch = lambda _: kept.append(weight_bytes(training.decoder))
    training.run()
    assert [epoch.validation_cider_d for epoch in training.history] == [0, 30, 20, 30]
    # The fourth is as good, and its loss is lower.
    assert training.best.epoch == 4
    assert weight_bytes(training.decoder) == kept[3]


@pytest.mark.parametrize(
    ("scores", "tolerance", "best"),
    [
        # Losses fall: of those near enough to the best score the last one.
        ([0, 30, 20, 29], 0.05, 4),
        ([0, 30, 20, 28], 0.05, 2),
        ([0, 30, 20, 28], 0.1, 4),
        ([30, 29, 20, 33], 0.05, 4),
        # The second replaced the first, and is no longer near; only its weights were kept.
        ([30, 29, 31, 30], 0.05, 4),
        ([30, 29, 20, 10], 0.05, 2),
        ([30, 29, 20, 10], 0.0, 1),
        ([30, 29, 20, 10], 1.0, 4),
    ],
)
def test_of_epochs_that_chance_could_exchange_the_one_of_less_loss_is_kept(
    tmp_path: Path, scores: list[float], tolerance: float, best: int
) -> None:
    following = iter(scores)
    kept: list[bytes] = []
    training = make_training(
        tmp_path,
        select="cider",
        select_tolerance=tolerance,
        cider_d=lambda _: next(following),
        after_epoch=lambda _: kept.append(weight_bytes(training.decoder)),
    )
    training.run()
    found = [epoch.validation_loss for epoch in training.history]
    assert found == sorted(found, reverse=True)
    assert training.best.epoch == best
    assert weight_bytes(training.decoder) == kept[best - 1]


@pytest.mark.parametrize("average_epochs", [1, 3])
def test_weights_are_averaged_over_epochs_but_learning_goes_on_from_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, average_epochs: int
) -> None:
    own: list[Weights] = []
    averaged: list[Weights] = []
    training = make_training(
        tmp_path,
        average_epochs=average_epochs,
        after_epoch=lambda _: averaged.append(training.decoder.network.get_weights()),
    )
    network, train_epoch = training.decoder.network, training.phase.train_epoch

    def note(epoch: int) -> float:
        for weight, before in zip(network.get_weights(), own[-1] if own else [], strict=False):
            np.testing.assert_array_equal(weight, before)
        loss = train_epoch(epoch)
        own.append(network.get_weights())
        return loss

    monkeypatch.setattr(training.phase, "learn", note)
    training.run()
    # Of the first three epochs the plain mean; after that a third is the new one's.
    shares = {
        1: [[1.0], [0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]],
        3: [[1.0], [1 / 2, 1 / 2], [1 / 3, 1 / 3, 1 / 3], [2 / 9, 2 / 9, 2 / 9, 1 / 3]],
    }[average_epochs]
    for found, share in zip(averaged, shares, strict=True):
        for position, weight in enumerate(found):
            own_ones = np.stack([weights[position] for weights in own[: len(share)]])
            np.testing.assert_allclose(weight, np.tensordot(share, own_ones, 1), atol=1e-6)
    best = averaged[training.best.epoch - 1]
    for weight, kept in zip(network.get_weights(), best, strict=True):
        np.testing.assert_array_equal(weight, kept)


def test_while_captions_make_no_sense_the_loss_tells(tmp_path: Path) -> None:
    training = make_training(tmp_path, select="cider", patience=1)
    training.run()
    assert training.best == min(training.history, key=lambda epoch: epoch.validation_loss)


def test_training_goes_on_while_either_gets_better(tmp_path: Path) -> None:
    training = make_training(
        tmp_path,
        select="cider",
        patience=2,
        epochs=60,
        learning_rate=0.1,
        cider_d=lambda _: float(next(scores)),
    )
    scores = iter(range(99, 0, -1))
    training.run()
    assert training.best.epoch == 1
    found = [epoch.validation_loss for epoch in training.history]
    assert len(found) == found.index(min(found)) + 1 + 2
    assert training.stopped == "no better validation loss or CIDEr-D for 2 epochs"
