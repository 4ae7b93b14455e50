import copy
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
from pipeline.captioner.training.history import CrossEntropyEpoch, EpochRow
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

pytestmark = pytest.mark.usefixtures("untraced")

Weights = list[Any]


def ignore(_: Sequence[EpochRow]) -> None:
    """Do nothing at the end of an epoch."""


def make_loop(
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
    on_epoch_end: Callable[[Sequence[EpochRow]], None] = ignore,
    captions: Sequence[tuple[str, str]] = SAME_LENGTH_CAPTIONS,
) -> FitLoop:
    store = make_store(folder / "features.h5")
    decoder = make_decoder(seed=seed, dropout=dropout)
    train = make_batches(store, captions)
    return FitLoop(
        decoder=decoder,
        phase=CrossEntropy(decoder, train, OptimizerConfig(learning_rate), epochs, seed=5),
        dev_batches=make_batches(store, SAME_LENGTH_DEV_CAPTIONS),
        cider_d=cider_d,
        epochs=epochs,
        patience=patience,
        select=select,
        select_tolerance=select_tolerance,
        average_epochs=average_epochs,
        checkpoint=Checkpoint(folder, "fingerprint"),
        on_epoch_end=on_epoch_end,
    )


def losses_of(loop: FitLoop) -> list[float]:
    return [epoch.loss for epoch in loop.history if isinstance(epoch, CrossEntropyEpoch)]


def train_batches_of(loop: FitLoop) -> Batches:
    assert isinstance(loop.phase, CrossEntropy)
    return loop.phase.batches


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> FitLoop:
    """Train for four epochs without interruption."""
    loop = make_loop(tmp_path_factory.mktemp("uninterrupted"))
    loop.run()
    return loop


def test_the_training_loss_falls(uninterrupted: FitLoop) -> None:
    assert [epoch.epoch for epoch in uninterrupted.history] == [1, 2, 3, 4]
    assert losses_of(uninterrupted)[-1] < losses_of(uninterrupted)[0]
    assert uninterrupted.stop_reason == "all 4 epochs done"
    assert not uninterrupted.interrupted


def test_equal_seeds_and_data_give_equal_weights(uninterrupted: FitLoop, tmp_path: Path) -> None:
    again = make_loop(tmp_path)
    again.run()
    assert again.history == uninterrupted.history
    assert weight_bytes(again.decoder) == weight_bytes(uninterrupted.decoder)


@pytest.mark.parametrize("saved", [False, True], ids=["before the checkpoint", "after it"])
def test_a_killed_training_resumes_with_an_identical_result(
    uninterrupted: FitLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: bool
) -> None:
    def kill(history: Sequence[EpochRow]) -> None:
        if len(history) == 3:
            raise Killed

    killed = make_loop(tmp_path, on_epoch_end=ignore if saved else kill)
    if saved:
        save = killed.checkpoint.save

        def save_and_kill(arrays: dict[str, Any], metadata: dict[str, Any]) -> None:
            save(arrays, metadata)
            kill(killed.history)

        monkeypatch.setattr(killed.checkpoint, "save", save_and_kill)
    with pytest.raises(Killed):
        killed.run()
    seen: list[int] = []
    # Other initial weights and dropout seeds: everything must come from the checkpoint.
    resumed = make_loop(tmp_path, seed=2, on_epoch_end=lambda history: seen.append(len(history)))
    resumed.run()
    assert seen == ([4] if saved else [3, 4])
    assert resumed.history == uninterrupted.history
    assert resumed.stop_reason == uninterrupted.stop_reason
    assert weight_bytes(resumed.decoder) == weight_bytes(uninterrupted.decoder)


def test_a_training_killed_after_its_last_epoch_is_not_trained_again(
    uninterrupted: FitLoop, tmp_path: Path
) -> None:
    shutil.copytree(uninterrupted.checkpoint.folder, Checkpoint(tmp_path, "fingerprint").folder)
    seen: list[int] = []
    again = make_loop(tmp_path, seed=2, on_epoch_end=lambda history: seen.append(len(history)))
    again.run()
    assert seen == []
    assert again.history == uninterrupted.history
    assert weight_bytes(again.decoder) == weight_bytes(uninterrupted.decoder)


def test_with_a_damaged_checkpoint_training_starts_over(
    uninterrupted: FitLoop, tmp_path: Path
) -> None:
    loop = make_loop(tmp_path, epochs=1)
    loop.checkpoint.save({"state_0": np.zeros(3)}, {})
    (loop.checkpoint.folder / "state.npz").write_bytes(b"PK")
    loop.run()
    assert loop.history == uninterrupted.history[:1]


def _without_first(values: dict[str, Any]) -> None:
    del values[next(iter(values))]


Tampering = Callable[[dict[str, Any], dict[str, Any]], object]
TAMPERINGS: list[Tampering] = [
    lambda arrays, _: arrays.clear(),
    lambda arrays, _: _without_first(arrays),
    lambda arrays, _: arrays.pop("best_0"),
    lambda arrays, _: arrays.update(average_0=arrays["average_0"][:-1]),
    lambda arrays, _: arrays.update(average_0=arrays["average_0"][None]),
    lambda arrays, _: arrays.update(state_0=arrays["state_0"].astype(np.float64)),
    lambda arrays, _: arrays.update(state_0=np.array("text")),
    lambda arrays, _: arrays.update(state_0=np.full_like(arrays["state_0"], np.nan)),
    lambda arrays, _: arrays.update(best_1=np.full_like(arrays["best_1"], np.inf)),
    lambda _, metadata: metadata.clear(),
    lambda _, metadata: metadata.update(history=[]),
    lambda _, metadata: metadata.update(history=7),
    lambda _, metadata: metadata.update(history="epochs"),
    lambda _, metadata: metadata.update(history=[[]]),
    lambda _, metadata: metadata["history"].reverse(),
    lambda _, metadata: metadata["history"][0].pop("loss"),
    lambda _, metadata: metadata["history"][0].update(reward=1.0),
    lambda _, metadata: metadata["history"][0].update(loss="1.0"),
    lambda _, metadata: metadata["history"][0].update(loss=None),
    lambda _, metadata: metadata["history"][0].update(epoch=True),
    lambda _, metadata: metadata["history"][0].update(epoch=0),
]


def test_a_tampered_checkpoint_is_set_aside_and_changes_nothing(
    uninterrupted: FitLoop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = uninterrupted.checkpoint.load()
    assert loaded is not None
    loop = make_loop(tmp_path, seed=2)
    initial = weight_bytes(loop.decoder)
    for number, tamper in enumerate(TAMPERINGS):
        arrays, metadata = dict(loaded[0]), copy.deepcopy(loaded[1])
        tamper(arrays, metadata)
        loop.checkpoint.save(arrays, metadata)
        loop._resume()
        assert "state.npz is damaged" in capsys.readouterr().out, number
        assert (loop.history, loop.stop_reason) == ([], "")
        assert weight_bytes(loop.decoder) == initial
        assert loop.checkpoint.load() is None


@pytest.mark.soak
def test_no_mutation_of_a_checkpoint_gives_a_traceback(
    uninterrupted: FitLoop, tmp_path: Path
) -> None:
    uninterrupted.checkpoint.load()
    loop, random = make_loop(tmp_path, seed=2), np.random.default_rng(0)
    original = (uninterrupted.checkpoint.folder / "state.npz").read_bytes()
    state = loop.checkpoint.folder / "state.npz"
    state.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(500):
        data = bytearray(original)
        for _ in range(random.integers(1, 9)):
            start = int(random.integers(len(data)))
            size = int(random.integers(1, 40))
            data[start : start + size] = random.bytes(int(random.integers(0, 40)))
        state.write_bytes(data)
        loop.history, loop.stop_reason = [], ""
        loop._resume()
        assert not loop.history or loop.history == uninterrupted.history


def test_the_lines_name_the_kept_epoch_and_its_rule(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = iter([30.0, 29.0, 20.0])
    loop = make_loop(
        tmp_path, epochs=3, select="cider", select_tolerance=0.05, cider_d=lambda _: next(scores)
    )
    loop.run()
    lines = capsys.readouterr().out.splitlines()
    assert ["(kept so far)" in line for line in lines] == [True, True, False]
    assert loop.best.epoch == 2
    assert loop.rule == (
        "of the epochs whose CIDEr-D is within 5% of the highest, the one with the lowest "
        "validation loss is kept"
    )


def test_an_interrupted_training_keeps_its_best_epoch(
    uninterrupted: FitLoop, tmp_path: Path
) -> None:
    def interrupt(history: Sequence[EpochRow]) -> None:
        if len(history) == 2:
            raise KeyboardInterrupt

    loop = make_loop(tmp_path, on_epoch_end=interrupt)
    loop.run()
    assert loop.interrupted
    assert loop.history == uninterrupted.history[:2]
    assert loop.checkpoint.load() is not None
    assert validation_loss(loop) == pytest.approx(loop.best.validation_loss, abs=1e-5)


class InterruptedBatches(Batches):
    """Raises KeyboardInterrupt in the middle of an epoch."""

    epoch = 0

    def train_batches(self, seed: int, epoch: int) -> Iterator[Batch]:
        for number, batch in enumerate(super().train_batches(seed, epoch)):
            if epoch == self.epoch and number == 1:
                raise KeyboardInterrupt
            yield batch


@pytest.mark.parametrize("epoch", [1, 3])
def test_an_interrupt_in_the_middle_of_an_epoch(
    uninterrupted: FitLoop, tmp_path: Path, epoch: int
) -> None:
    loop = make_loop(tmp_path)
    train_batches_of(loop).__class__ = InterruptedBatches
    train_batches_of(loop).epoch = epoch  # type: ignore[attr-defined]
    if epoch == 1:
        with pytest.raises(KeyboardInterrupt):
            loop.run()
        assert loop.checkpoint.load() is None
        return
    loop.run()
    assert loop.interrupted
    assert loop.history == uninterrupted.history[:2]
    assert validation_loss(loop) == pytest.approx(loop.best.validation_loss, abs=1e-5)
    # It resumes as if it had not been interrupted.
    resumed = make_loop(tmp_path)
    resumed.run()
    assert resumed.history == uninterrupted.history
    assert weight_bytes(resumed.decoder) == weight_bytes(uninterrupted.decoder)


def test_training_stops_early_and_keeps_the_best_epochs_weights(tmp_path: Path) -> None:
    weights_by_epoch: list[Weights] = []
    loop = make_loop(
        tmp_path,
        learning_rate=0.3,
        epochs=30,
        patience=2,
        on_epoch_end=lambda _: weights_by_epoch.append(loop.decoder.network.get_weights()),
    )
    loop.run()
    losses = [epoch.validation_loss for epoch in loop.history]
    best = int(np.argmin(losses))
    assert len(losses) == best + 3 < 30
    assert loop.best == loop.history[best]
    assert loop.stop_reason == "no better validation loss for 2 epochs"
    weights = loop.decoder.network.get_weights()
    best_weights, last_weights = weights_by_epoch[best], weights_by_epoch[-1]
    assert all(np.array_equal(a, b) for a, b in zip(weights, best_weights, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(weights, last_weights, strict=True))


def negative_log_likelihoods(decoder: Decoder, batches: Batches) -> list[float]:
    """Return one number for each word, without padding and dropout."""
    result = []
    for batch in batches.eval_batches():
        scores = log_softmax(sequence_logits(decoder, batch.features, batch.inputs))
        for row, targets in zip(scores, batch.targets, strict=True):
            result += [-float(row[i, word]) for i, word in enumerate(targets) if word != PAD]
    return result


def validation_loss(loop: FitLoop) -> float:
    return float(np.mean(negative_log_likelihoods(loop.decoder, loop.dev_batches)))


def test_losses_are_means_over_words_however_they_are_batched(tmp_path: Path) -> None:
    # With a tiny learning rate and without dropout the training loss is that of the initial
    # weights. Ten captions of two to seven targets make three uneven batches.
    loop = make_loop(tmp_path, epochs=1, learning_rate=1e-12, dropout=0.0, captions=CAPTIONS)
    initial_losses = negative_log_likelihoods(loop.decoder, train_batches_of(loop))
    loop.run()
    words = sum(len(text.split()) + 1 for _, text in CAPTIONS)
    assert len(initial_losses) == words
    sizes = [len(b.inputs) * b.inputs.shape[1] for b in train_batches_of(loop).eval_batches()]
    assert sum(sizes) > words  # some positions are padding
    assert losses_of(loop)[0] == pytest.approx(np.mean(initial_losses), abs=1e-5)
    assert loop.history[0].validation_loss == pytest.approx(validation_loss(loop), abs=1e-5)


def test_the_validation_loss_is_that_of_the_kept_weights(uninterrupted: FitLoop) -> None:
    assert validation_loss(uninterrupted) == pytest.approx(
        uninterrupted.best.validation_loss, abs=1e-5
    )


def test_training_stops_at_a_nan_loss_and_keeps_the_best_epoch(
    uninterrupted: FitLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = make_loop(tmp_path, cider_d=make_cider_d(tmp_path))
    network, train_epoch = loop.decoder.network, loop.phase.train_epoch

    def diverge(epoch: int) -> float:
        if epoch == 3:
            network.set_weights([weight * np.nan for weight in network.get_weights()])
        return train_epoch(epoch)

    monkeypatch.setattr(loop.phase, "train_epoch", diverge)
    loop.run()
    assert loop.stop_reason == (
        "diverged (loss nan, validation loss nan): lower train.learning_rate"
    )
    assert not loop.diverged
    assert [epoch.epoch for epoch in loop.history] == [1, 2, 3]
    assert losses_of(loop)[:2] == losses_of(uninterrupted)[:2]
    assert loop.best in loop.history[:2]
    assert all(np.isfinite(w).all() for w in loop.decoder.network.get_weights())


def make_cider_d(folder: Path) -> Callable[[Decoder], float]:
    """Return the function that scores captions of dev photos, as in the stage."""
    store = make_store(folder / "dev.h5")
    return Validation(store, make_vocabulary(), {"0.jpg": ["a dog"]}, 3, max_words=6).cider_d


@pytest.mark.parametrize("learning_rate", [1e38, 1e4], ids=["nan", "too large"])
def test_divergence_in_the_first_epoch_is_reported(tmp_path: Path, learning_rate: float) -> None:
    loop = make_loop(
        tmp_path, learning_rate=learning_rate, average_epochs=1, cider_d=make_cider_d(tmp_path)
    )
    loop.run()
    assert loop.diverged
    assert len(loop.history) == 1
    assert re.fullmatch(r"diverged \(loss .+\): lower train\.learning_rate", loop.stop_reason)


def test_the_epoch_with_the_best_cider_is_kept_if_selected_by_cider(tmp_path: Path) -> None:
    scores = iter([0.0, 30.0, 20.0, 30.0])
    loop = make_loop(tmp_path, select="cider", cider_d=lambda _: next(scores))
    weights_by_epoch: list[bytes] = []
    loop.on_epoch_end = lambda _: weights_by_epoch.append(weight_bytes(loop.decoder))
    loop.run()
    assert [epoch.validation_cider_d for epoch in loop.history] == [0, 30, 20, 30]
    # The fourth epoch has the same score and a lower loss.
    assert loop.best.epoch == 4
    assert weight_bytes(loop.decoder) == weights_by_epoch[3]


@pytest.mark.parametrize(
    ("scores", "tolerance", "best"),
    [
        # Losses fall, so the last epoch within the tolerance is the best.
        ([0, 30, 20, 29], 0.05, 4),
        ([0, 30, 20, 28], 0.05, 2),
        pytest.param([0, 30, 20, 28], 0.1, 4, marks=pytest.mark.soak),
        pytest.param([30, 29, 20, 33], 0.05, 4, marks=pytest.mark.soak),
        # The second epoch replaced the first; when it falls out of the tolerance, the first
        # cannot come back, because its weights are gone.
        ([30, 29, 31, 30], 0.05, 4),
        ([30, 29, 20, 10], 0.05, 2),
        pytest.param([30, 29, 20, 10], 0.0, 1, marks=pytest.mark.soak),
        pytest.param([30, 29, 20, 10], 1.0, 4, marks=pytest.mark.soak),
    ],
)
def test_among_epochs_within_the_tolerance_the_lowest_loss_is_kept(
    tmp_path: Path, scores: list[float], tolerance: float, best: int
) -> None:
    remaining_scores = iter(scores)
    weights_by_epoch: list[bytes] = []
    loop = make_loop(
        tmp_path,
        select="cider",
        select_tolerance=tolerance,
        cider_d=lambda _: next(remaining_scores),
        on_epoch_end=lambda _: weights_by_epoch.append(weight_bytes(loop.decoder)),
    )
    loop.run()
    losses = [epoch.validation_loss for epoch in loop.history]
    assert losses == sorted(losses, reverse=True)
    assert loop.best.epoch == best
    assert weight_bytes(loop.decoder) == weights_by_epoch[best - 1]


@pytest.mark.parametrize("average_epochs", [1, 3])
def test_averaged_weights_are_kept_and_training_continues_from_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, average_epochs: int
) -> None:
    trained: list[Weights] = []
    averaged: list[Weights] = []
    loop = make_loop(
        tmp_path,
        average_epochs=average_epochs,
        on_epoch_end=lambda _: averaged.append(loop.decoder.network.get_weights()),
    )
    network, train_epoch = loop.decoder.network, loop.phase.train_epoch

    def record(epoch: int) -> float:
        last = trained[-1] if trained else network.get_weights()
        for weight, last_weight in zip(network.get_weights(), last, strict=True):
            np.testing.assert_array_equal(weight, last_weight)
        loss = train_epoch(epoch)
        trained.append(network.get_weights())
        return loss

    monkeypatch.setattr(loop.phase, "train_epoch", record)
    loop.run()
    # With three epochs: their plain mean; after that the new epoch has a third of the weight.
    shares = {
        1: [[1.0], [0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]],
        3: [[1.0], [1 / 2, 1 / 2], [1 / 3, 1 / 3, 1 / 3], [2 / 9, 2 / 9, 2 / 9, 1 / 3]],
    }[average_epochs]
    for average, share in zip(averaged, shares, strict=True):
        for position, weight in enumerate(average):
            stacked = np.stack([weights[position] for weights in trained[: len(share)]])
            np.testing.assert_allclose(weight, np.tensordot(share, stacked, 1), atol=1e-6)
    best = averaged[loop.best.epoch - 1]
    for weight, best_weight in zip(network.get_weights(), best, strict=True):
        np.testing.assert_array_equal(weight, best_weight)


def test_while_all_captions_score_zero_the_loss_decides(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, select="cider", patience=1)
    loop.run()
    assert loop.best == min(loop.history, key=lambda epoch: epoch.validation_loss)


def test_training_continues_while_loss_or_cider_improves(tmp_path: Path) -> None:
    loop = make_loop(
        tmp_path,
        select="cider",
        patience=2,
        epochs=60,
        learning_rate=0.1,
        cider_d=lambda _: float(next(scores)),
    )
    scores = iter(range(99, 0, -1))
    loop.run()
    assert loop.best.epoch == 1
    losses = [epoch.validation_loss for epoch in loop.history]
    assert len(losses) == losses.index(min(losses)) + 1 + 2
    assert loop.stop_reason == "no better validation loss or CIDEr-D for 2 epochs"
