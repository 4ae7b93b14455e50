import csv
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.captioner.batches import Batch, Batches
from pipeline.captioner.checkpoint import Checkpoint
from pipeline.captioner.compiled import load_compiled
from pipeline.captioner.decoder import Decoder
from pipeline.captioner.model import Model
from pipeline.captioner.training import Epoch, Training
from pipeline.captions.vocabulary import PAD, Vocabulary
from pipeline.errors import InputError
from pipeline.features import graphs
from pipeline.stages import tokenize, train
from tests.captioner_fixtures import (
    CAPTIONS,
    PHOTOS,
    log_softmax,
    logits_of,
    make_batches,
    make_decoder,
    make_store,
    vectors,
    write_captions,
    write_params,
)

Weights = list[Any]

# Of one length, so that there is one shape to compile for; the words are in CAPTIONS as well.
EVEN = [
    ("0.jpg", "a dog runs"),
    ("1.jpg", "a cat runs"),
    ("2.jpg", "a big dog"),
    ("3.jpg", "a dog sleeps"),
    ("4.jpg", "two cats sleep"),
    ("5.jpg", "a dog runs"),
    ("6.jpg", "two cats runs"),
    ("7.jpg", "grass on grass"),
]
EVEN_DEV = [("1.jpg", "a cat sleeps"), ("3.jpg", "dog on grass")]


def ignore(_: list[Epoch]) -> None:
    """Stand where a diary would."""


def make_training(
    folder: Path,
    *,
    seed: int = 1,
    dropout: float = 0.5,
    learning_rate: float = 0.01,
    epochs: int = 4,
    patience: int = 9,
    after_epoch: Callable[[list[Epoch]], None] = ignore,
    captions: Sequence[tuple[str, str]] = EVEN,
) -> Training:
    store = make_store(folder / "features.h5")
    return Training(
        decoder=make_decoder(seed=seed, dropout=dropout),
        train=make_batches(store, captions),
        dev=make_batches(store, EVEN_DEV),
        learning_rate=learning_rate,
        epochs=epochs,
        patience=patience,
        seed=5,
        checkpoint=Checkpoint(folder, "fingerprint"),
        after_epoch=after_epoch,
    )


def weights_of(training: Training) -> bytes:
    return b"".join(w.tobytes() for w in training.decoder.network.get_weights())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """Train for four epochs without a pause."""
    training = make_training(tmp_path_factory.mktemp("whole"))
    training.run()
    return training


def test_the_decoder_learns(whole: Training) -> None:
    assert [epoch.epoch for epoch in whole.history] == [1, 2, 3, 4]
    assert whole.history[-1].loss < whole.history[0].loss
    assert whole.stopped == "all 4 epochs done"
    assert not whole.interrupted


def test_equal_seeds_and_data_give_equal_weights(whole: Training, tmp_path: Path) -> None:
    again = make_training(tmp_path)
    again.run()
    assert again.history == whole.history
    assert weights_of(again) == weights_of(whole)


class Killed(Exception):  # noqa: N818  (no error: it stands for SIGKILL)
    pass


@pytest.mark.parametrize("saved", [False, True], ids=["before its state is kept", "after"])
def test_a_killed_training_goes_on_to_the_very_same_end(
    whole: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: bool
) -> None:
    def kill(history: list[Epoch]) -> None:
        if len(history) == 3:
            raise Killed

    killed = make_training(tmp_path, after_epoch=ignore if saved else kill)
    if saved:
        save = killed.checkpoint.save

        def save_and_kill(arrays: dict[str, Any], facts: dict[str, Any]) -> None:
            save(arrays, facts)
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
    assert weights_of(resumed) == weights_of(whole)


def test_a_training_killed_after_its_end_is_not_trained_again(
    whole: Training, tmp_path: Path
) -> None:
    shutil.copytree(whole.checkpoint.folder, Checkpoint(tmp_path, "fingerprint").folder)
    seen: list[int] = []
    again = make_training(tmp_path, seed=2, after_epoch=lambda history: seen.append(len(history)))
    again.run()
    assert seen == []
    assert again.history == whole.history
    assert weights_of(again) == weights_of(whole)


def test_a_damaged_checkpoint_starts_the_training_anew(whole: Training, tmp_path: Path) -> None:
    training = make_training(tmp_path, epochs=1)
    training.checkpoint.save({"state_0": np.zeros(3)}, {})
    (training.checkpoint.folder / "state.npz").write_bytes(b"PK")
    training.run()
    assert training.history == whole.history[:1]


def test_an_interrupted_training_keeps_its_best_epoch(whole: Training, tmp_path: Path) -> None:
    def interrupt(history: list[Epoch]) -> None:
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
def test_an_interrupt_amid_an_epoch(whole: Training, tmp_path: Path, epoch: int) -> None:
    training = make_training(tmp_path)
    training.train.__class__ = InterruptedBatches
    training.train.epoch = epoch  # type: ignore[attr-defined]
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
    assert weights_of(resumed) == weights_of(whole)


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
    losses = [epoch.validation_loss for epoch in training.history]
    best = int(np.argmin(losses))
    assert len(losses) == best + 3 < 30
    assert training.best == training.history[best]
    assert training.stopped == "no better validation loss for 2 epochs"
    found = training.decoder.network.get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(found, kept[best], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(found, kept[-1], strict=True))


def negative_log_likelihoods(decoder: Decoder, batches: Batches) -> list[float]:
    """Return one a word, padding left out, dropout off."""
    found = []
    for batch in batches.in_order():
        scores = log_softmax(logits_of(decoder, batch.features, batch.inputs))
        for row, targets in zip(scores, batch.targets, strict=True):
            found += [-float(row[i, word]) for i, word in enumerate(targets) if word != PAD]
    return found


def validation_loss(training: Training) -> float:
    return float(np.mean(negative_log_likelihoods(training.decoder, training.dev)))


def test_losses_are_the_mean_over_words_whatever_batch_they_are_in(tmp_path: Path) -> None:
    # With hardly any learning rate and without dropout, the training loss is that of the
    # initial weights; ten captions of two to seven targets make three uneven batches.
    training = make_training(
        tmp_path, epochs=1, learning_rate=1e-12, dropout=0.0, captions=CAPTIONS
    )
    before = negative_log_likelihoods(training.decoder, training.train)
    training.run()
    words = sum(len(text.split()) + 1 for _, text in CAPTIONS)
    assert len(before) == words
    batches = [len(b.inputs) * b.inputs.shape[1] for b in training.train.in_order()]
    assert sum(batches) > words  # some of it is padding
    assert training.history[0].loss == pytest.approx(np.mean(before), abs=1e-5)
    assert training.history[0].validation_loss == pytest.approx(validation_loss(training), abs=1e-5)


def test_the_validation_loss_is_that_of_the_kept_weights(whole: Training) -> None:
    assert validation_loss(whole) == pytest.approx(whole.best.validation_loss, abs=1e-5)


def test_a_loss_that_is_no_number_stops_and_keeps_the_best_epoch(
    whole: Training, tmp_path: Path
) -> None:
    def spoil(history: list[Epoch]) -> None:
        network = training.decoder.network
        if len(history) == 2:
            network.set_weights([weight * np.nan for weight in network.get_weights()])

    training = make_training(tmp_path, after_epoch=spoil)
    training.run()
    assert training.stopped == "the loss is no longer a number: lower train.learning_rate"
    assert [epoch.epoch for epoch in training.history] == [1, 2, 3]
    assert training.history[:2] == whole.history[:2]
    assert training.best in training.history[:2]
    assert all(np.isfinite(w).all() for w in training.decoder.network.get_weights())


def test_a_loss_that_never_was_a_number_is_refused(tmp_path: Path) -> None:
    training = make_training(tmp_path, learning_rate=1e38)
    with pytest.raises(
        InputError, match=r"params\.yaml.*no longer a number: lower train\.learning_rate"
    ):
        training.run()


# The stage


TINY: dict[str, Any] = {
    "units": 8,
    "embedding_size": 8,
    "batch_size": 3,
    "epochs": 2,
    "max_words": 6,
    "sample_photos": 2,
}
OUTPUTS = ["history.csv", "model/model.json", "model/model.weights.h5"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lay what the stages before `train` leave."""
    monkeypatch.chdir(tmp_path)
    write_params(
        tmp_path, train=TINY, tokenize={"min_count": 1}, dataset={"root": "no such folder"}
    )
    training = [pair for pair in EVEN if pair[0] not in dict(EVEN_DEV)]
    captions = {"train": [*training, ("gone.jpg", "a bed")], "dev": EVEN_DEV}
    write_captions(tmp_path / "artifacts" / "captions.parquet", captions)
    make_store(tmp_path / "artifacts" / "features.h5")
    tokenize.main()
    return tmp_path


def artifacts(project: Path) -> dict[str, bytes]:
    """Return what the stage writes, by its path."""
    folder = project / "artifacts"
    inputs = {"captions.parquet", "features.h5", "vocabulary.json"}
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in inputs
    }


def test_the_stage_writes_model_history_and_samples_the_same_each_time(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train.main()
    first = artifacts(project)
    samples = [f"samples/epoch_00{n}.{kind}" for n in (1, 2) for kind in ("png", "txt")]
    assert sorted(first) == sorted([*OUTPUTS, *samples])
    rows = list(csv.DictReader(first["history.csv"].decode().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    shown = capsys.readouterr().out
    assert "train: 1 captions of failed photos left out" in shown
    assert "all 2 epochs done; kept epoch" in shown

    model = Model.load(
        project / "artifacts" / "model", Vocabulary.load(project / "artifacts" / "vocabulary.json")
    )
    facts = model.description.facts
    assert facts["epochs"] == 2
    assert facts["stopped"] == "all 2 epochs done"
    assert facts["params"]["units"] == 8
    assert f"{facts['best']['validation_loss']}" in {r["validation_loss"] for r in rows}
    # A training that came to its end is forgotten, so this one starts anew.
    assert [path.name for path in (project / ".cache" / "training").iterdir()] == ["lock"]

    for path in (project / "artifacts" / "model", project / "artifacts" / "samples"):
        shutil.rmtree(path)
    train.main()
    assert artifacts(project) == first


def test_where_graphs_are_in_use_the_stage_makes_those_of_its_decoder(project: Path) -> None:
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    folder = project / "artifacts" / graphs.FOLDER
    folder.mkdir()
    train.main()
    vocabulary = Vocabulary.load(project / "artifacts" / "vocabulary.json")
    model = Model.load(project / "artifacts" / "model", vocabulary)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(before) == 6
    compiled = load_compiled(project / "artifacts", model.description, lambda: model.decoder)
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    for array, other in zip(compiled.begin(vectors()), model.decoder.begin(vectors()), strict=True):
        np.testing.assert_allclose(array, other, atol=1e-6)


def test_a_stage_killed_before_its_end_goes_on_with_its_diary(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = Checkpoint.save

    def save_and_die(self: Checkpoint, arrays: dict[str, Any], facts: dict[str, Any]) -> None:
        save(self, arrays, facts)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "save", save_and_die)
        with pytest.raises(Killed):
            train.main()
    # As DVC does before it runs a stage.
    (project / "artifacts" / "history.csv").unlink()
    shutil.rmtree(project / "artifacts" / "samples")
    train.main()
    assert "going on after epoch 1" in capsys.readouterr().out
    assert (project / "artifacts" / "samples" / "epoch_001.txt").exists()
    assert (project / "artifacts" / "history.csv").read_text().count("\n") == 3


def test_a_vocabulary_of_other_captions_is_refused_by_the_stage(project: Path) -> None:
    path = project / "artifacts" / "captions.parquet"
    write_captions(path, {"train": [("0.jpg", "a dog")], "dev": [("1.jpg", "a dog")]})
    with pytest.raises(InputError, match=r"vocabulary\.json.*other captions.*dvc repro tokenize"):
        train.main()
    assert not (project / "artifacts" / "model").exists()


def test_a_split_without_features_is_refused_by_the_stage(project: Path) -> None:
    make_store(
        project / "artifacts" / "features.h5", [p for p in PHOTOS if p not in dict(EVEN_DEV)]
    )
    with pytest.raises(InputError, match=r"no dev caption has a photo with features.*say why"):
        train.main()


def test_an_interrupted_stage_keeps_its_checkpoint(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", interrupt)
    train.main()
    shown = capsys.readouterr().out
    assert "interrupted; kept epoch 1" in shown
    assert "to go on from here later" in shown
    assert (project / "artifacts" / "model" / "model.json").exists()
    (folder,) = (p for p in (project / ".cache" / "training").iterdir() if p.is_dir())
    assert (folder / "diary" / "history.csv").exists()
