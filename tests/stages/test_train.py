import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.captioner.decoders.openvino import load_openvino_decoder
from pipeline.captioner.model_folder import Model
from pipeline.captioner.training.checkpoint import Checkpoint
from pipeline.captioner.training.cross_entropy import CrossEntropy
from pipeline.captioner.training.fit import Phase
from pipeline.captioner.training.self_critical import SelfCritical
from pipeline.captioner.training.validation import Validation
from pipeline.datasets.caption_table import read_caption_table
from pipeline.errors import InputError
from pipeline.features.store import FeatureStore
from pipeline.files import sha256_file
from pipeline.stages import tokenize, train
from pipeline.storage import openvino_graphs
from pipeline.text.vocabulary import Vocabulary
from tests.support.captioner import (
    PHOTOS,
    SAME_LENGTH_CAPTIONS,
    SAME_LENGTH_DEV_CAPTIONS,
    Killed,
    make_store,
    vectors,
    write_captions,
    write_extract_json,
    write_params,
)
from tests.support.closure import ROOT, closure

pytestmark = pytest.mark.usefixtures("untraced")

TRAIN_PARAMS: dict[str, Any] = {
    "units": 8,
    "embedding_size": 8,
    "batch_size": 3,
    "epochs": 2,
    "max_words": 6,
    "sample_photos": 2,
}
OUTPUTS = [
    "history.csv",
    "model/model.json",
    "model/seed_2026.weights.h5",
    "self_critical.csv",
]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the outputs of the stages before `train`."""
    monkeypatch.chdir(tmp_path)
    write_params(
        tmp_path, train=TRAIN_PARAMS, tokenize={"min_count": 1}, dataset={"root": "no such folder"}
    )
    training = [
        pair for pair in SAME_LENGTH_CAPTIONS if pair[0] not in dict(SAME_LENGTH_DEV_CAPTIONS)
    ]
    captions = {"train": [*training, ("gone.jpg", "a bed")], "dev": SAME_LENGTH_DEV_CAPTIONS}
    write_captions(tmp_path / "artifacts" / "captions.parquet", captions)
    make_store(tmp_path / "artifacts" / "features.h5")
    write_extract_json(tmp_path / "artifacts")
    tokenize.main()
    return tmp_path


def outputs_of(project: Path) -> dict[str, bytes]:
    """Return the files that the stage writes, by their paths."""
    folder = project / "artifacts"
    inputs = {"captions.parquet", "extract.json", "features.h5", "vocabulary.json"}
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in inputs and path.name != ".train.lock"
    }


def test_the_stage_writes_model_history_and_samples_the_same_each_time(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train.main()
    first = outputs_of(project)
    samples = [f"samples/seed_2026/epoch_00{n}.{kind}" for n in (1, 2) for kind in ("png", "txt")]
    assert sorted(first) == sorted([*OUTPUTS, *samples])
    rows = list(csv.DictReader(first["history.csv"].decode().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    shown = capsys.readouterr().out
    assert "train: 1 captions of failed photos left out" in shown
    assert "all 2 epochs done; kept epoch" in shown

    model = Model.load(
        project / "artifacts" / "model", Vocabulary.load(project / "artifacts" / "vocabulary.json")
    )
    assert model.config.metadata["params"]["units"] == 8
    metadata = model.config.members[0].metadata
    assert metadata["epochs"] == 2
    assert metadata["stopped"] == "all 2 epochs done"
    assert f"{metadata['best']['validation_loss']}" in {r["validation_loss"] for r in rows}
    # The checkpoint of a complete training is removed, so the next one starts over.
    assert [path.name for path in (project / ".cache" / "training").iterdir()] == ["lock"]

    for path in (project / "artifacts" / "model", project / "artifacts" / "samples"):
        shutil.rmtree(path)
    train.main()
    assert outputs_of(project) == first


def test_the_mean_of_the_training_features_is_saved_with_the_weights(project: Path) -> None:
    table = read_caption_table(project / "artifacts" / "captions.parquet")
    store = FeatureStore.open(project / "artifacts" / "features.h5")
    image_ids = [image_id for image_id, _ in table.captions("train") if image_id in store.rows]
    train.main()
    (decoder,) = model_of(project).decoders
    (mean,) = decoder.network.get_layer("feature_norm").get_weights()
    np.testing.assert_allclose(mean, store.read(image_ids).mean(axis=0), atol=1e-6)


def test_the_param_condition_dropout_is_used(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    initialize = CrossEntropy.__init__

    def spy(phase: CrossEntropy, *arguments: Any, **options: Any) -> None:
        rates.append(options["condition_dropout"])
        initialize(phase, *arguments, **options)

    monkeypatch.setattr(CrossEntropy, "__init__", spy)
    write_params(project, train={"condition_dropout": 0.4, "epochs": 1})
    train.main()
    assert rates == [0.4]


def test_where_graphs_are_used_the_stage_converts_its_decoder(project: Path) -> None:
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    folder = project / "artifacts" / openvino_graphs.FOLDER
    folder.mkdir()
    train.main()
    vocabulary = Vocabulary.load(project / "artifacts" / "vocabulary.json")
    model = Model.load(project / "artifacts" / "model", vocabulary)
    graphs = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(graphs) == 12
    (decoder,), (member,) = model.decoders, model.config.members
    compiled = load_openvino_decoder(project / "artifacts", model.config, member, lambda: decoder)
    assert graphs == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    states = [d.begin(vectors()) for d in (compiled, decoder)]
    np.testing.assert_allclose(states[0].context[0], states[1].context[0], atol=1e-6)


def test_a_killed_stage_resumes_with_its_log(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = Checkpoint.save

    def save_and_die(self: Checkpoint, arrays: dict[str, Any], metadata: dict[str, Any]) -> None:
        save(self, arrays, metadata)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoint, "save", save_and_die)
        with pytest.raises(Killed):
            train.main()
    # As DVC does before it runs a stage.
    (project / "artifacts" / "history.csv").unlink()
    shutil.rmtree(project / "artifacts" / "samples")
    train.main()
    assert "resuming after epoch 1" in capsys.readouterr().out
    assert (project / "artifacts" / "samples" / "seed_2026" / "epoch_001.txt").exists()
    assert (project / "artifacts" / "history.csv").read_text().count("\n") == 3


def test_the_temporary_files_of_killed_runs_are_removed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("vocabulary.json", "history.csv", "self_critical.csv"):
        (project / "artifacts" / f".tmp-01234567-{name}").write_bytes(b"half of it")
    tokenize.main()
    monkeypatch.setattr(train, "_TrainRun", lambda *_: pytest.fail("it trains"))
    with pytest.raises(pytest.fail.Exception):
        train.main()
    assert not list((project / "artifacts").glob(".tmp-*"))


def test_a_vocabulary_of_other_captions_is_refused(project: Path) -> None:
    path = project / "artifacts" / "captions.parquet"
    write_captions(path, {"train": [("0.jpg", "a dog")], "dev": [("1.jpg", "a dog")]})
    with pytest.raises(InputError, match=r"vocabulary\.json.*other captions.*dvc repro tokenize"):
        train.main()
    assert not (project / "artifacts" / "model").exists()


@pytest.mark.parametrize("count", [0, 1])
def test_a_split_with_fewer_than_two_photos_with_features_is_refused(
    project: Path, count: int
) -> None:
    without = sorted(dict(SAME_LENGTH_DEV_CAPTIONS))[count:]
    make_store(project / "artifacts" / "features.h5", [p for p in PHOTOS if p not in without])
    with pytest.raises(InputError, match=r"fewer than 2 dev photos.*features.*list the reasons"):
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
    assert "to resume later" in shown
    assert (project / "artifacts" / "model" / "model.json").exists()
    (folder,) = (p for p in (project / ".cache" / "training").iterdir() if p.is_dir())
    assert (folder / "log" / "history.csv").exists()


# Several seeds, two phases.

SECOND_PHASE: dict[str, Any] = {"epochs": 2, "samples": 2, "batch_size": 3}


def set_params(project: Path, seeds: list[int], second_phase: dict[str, Any]) -> None:
    write_params(
        project,
        train=TRAIN_PARAMS | {"seeds": seeds, "sample_photos": 0},
        self_critical=second_phase,
        dataset={"root": "no such folder"},
    )


def history_of(project: Path, name: str) -> list[tuple[str, str]]:
    """Return the seed and the epoch of each row of a history."""
    text = (project / "artifacts" / f"{name}.csv").read_text("utf-8")
    return [(row["seed"], row["epoch"]) for row in csv.DictReader(text.splitlines())]


def model_of(project: Path) -> Model:
    vocabulary = Vocabulary.load(project / "artifacts" / "vocabulary.json")
    return Model.load(project / "artifacts" / "model", vocabulary)


def record_epochs(monkeypatch: pytest.MonkeyPatch, phase: type[Phase]) -> list[int]:
    """Return a list to which every epoch that is trained from now on is added."""
    epochs: list[int] = []
    train_epoch = phase.train_epoch

    def record(self: Phase, epoch: int) -> float:
        epochs.append(epoch)
        return train_epoch(self, epoch)

    monkeypatch.setattr(phase, "train_epoch", record)
    return epochs


def test_a_stage_killed_in_the_second_seed_does_not_train_the_first_again(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_params(project, [1, 2], SECOND_PHASE)
    train_epoch = CrossEntropy.train_epoch
    calls: list[int] = []

    def train_and_die(self: CrossEntropy, epoch: int) -> float:
        calls.append(epoch)
        if calls == [1, 2, 1, 2]:
            raise Killed
        return train_epoch(self, epoch)

    with monkeypatch.context() as patched:
        patched.setattr(CrossEntropy, "train_epoch", train_and_die)
        with pytest.raises(Killed):
            train.main()
    folder = project / "artifacts"
    for name in ("history.csv", "self_critical.csv"):
        (folder / name).unlink()  # as DVC does
    capsys.readouterr()

    cross_entropy_epochs = record_epochs(monkeypatch, CrossEntropy)
    self_critical_epochs = record_epochs(monkeypatch, SelfCritical)
    train.main()
    assert (cross_entropy_epochs, self_critical_epochs) == ([2], [1, 2])
    shown = capsys.readouterr().out
    assert [line for line in shown.splitlines() if line.startswith(("seed", "resuming"))] == [
        "seed 1",
        "resuming after epoch 2",
        "seed 1, self-critical phase",
        "resuming after epoch 2",
        "seed 2",
        "resuming after epoch 1",
        "seed 2, self-critical phase",
    ]
    both = [(seed, epoch) for seed in "12" for epoch in "12"]
    assert history_of(project, "history") == history_of(project, "self_critical") == both
    model = model_of(project)
    assert [member.seed for member in model.config.members] == [1, 2]
    assert [member.metadata["epochs"] for member in model.config.members] == [4, 4]
    assert model.config.metadata["self_critical"]["epochs"] == 2
    assert [path.name for path in (project / ".cache" / "training").iterdir()] == ["lock"]

    # A seed's decoder does not depend on the other seeds.
    second = (folder / "model" / "seed_2.weights.h5").read_bytes()
    assert second != (folder / "model" / "seed_1.weights.h5").read_bytes()
    shutil.rmtree(folder / "model")
    set_params(project, [2], SECOND_PHASE)
    train.main()
    assert {path.name for path in (folder / "model").iterdir()} == {
        "model.json",
        "seed_2.weights.h5",
    }
    assert (folder / "model" / "seed_2.weights.h5").read_bytes() == second


def test_a_stage_interrupted_in_the_first_seed_saves_its_model(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_params(project, [1, 2], SECOND_PHASE)

    def train_epoch(_: CrossEntropy, epoch: int) -> float:
        if epoch == 2:
            raise KeyboardInterrupt
        return 1.0

    monkeypatch.setattr(CrossEntropy, "train_epoch", train_epoch)
    train.main()
    assert "to resume later" in capsys.readouterr().out
    assert [member.seed for member in model_of(project).config.members] == [1]
    assert history_of(project, "history") == [("1", "1")]
    table = project / "artifacts" / "self_critical.csv"
    assert table.read_text() == "seed,epoch,reward,validation_loss,validation_cider_d\n"


@pytest.mark.parametrize("phase", [CrossEntropy, SelfCritical])
def test_a_stage_interrupted_in_a_first_epoch_keeps_the_earlier_result(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    phase: type[Phase],
) -> None:
    seeds = [1, 2] if phase is CrossEntropy else [1]
    set_params(project, seeds[:1], {})
    train.main()
    earlier = model_of(project).config.members[0]
    set_params(project, seeds, SECOND_PHASE if phase is SelfCritical else {})
    started: list[Phase] = []
    train_epoch = phase.train_epoch

    def interrupt(self: Phase, epoch: int) -> float:
        if self not in started:
            started.append(self)
        if len(started) == len(seeds):
            train_epoch(self, epoch)  # these weights must not be kept
            raise KeyboardInterrupt
        return train_epoch(self, epoch)

    monkeypatch.setattr(phase, "train_epoch", interrupt)
    train.main()
    assert "to resume later" in capsys.readouterr().out
    (member,) = model_of(project).config.members
    assert (member.seed, member.weights_sha256) == (1, earlier.weights_sha256)
    assert history_of(project, "self_critical") == []
    folders = [p for p in (project / ".cache" / "training").iterdir() if p.is_dir()]
    assert any((folder / "state.npz").exists() for folder in folders)


@pytest.mark.parametrize("better", [False, True])
def test_the_second_phase_is_kept_only_if_its_captions_score_better(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    better: bool,
) -> None:
    set_params(project, [1], SECOND_PHASE | {"epochs": 1})
    first_weights: list[list[Any]] = []

    def record(phase: CrossEntropy, _: int) -> float:
        variables = phase._model.trainable_variables
        first_weights.append([np.array(variable) for variable in variables])
        return 1.0

    def double(phase: SelfCritical, _: int) -> float:
        for variable in phase._model.trainable_variables:
            variable.assign(variable * 2)
        return 1.0

    scores = iter([7.0, 7.0, 8.0 if better else 7.0])
    monkeypatch.setattr(CrossEntropy, "train_epoch", record)
    monkeypatch.setattr(SelfCritical, "train_epoch", double)
    monkeypatch.setattr(Validation, "cider_d", lambda *_: next(scores))
    train.main()
    (decoder,) = model_of(project).decoders
    for weight, first in zip(decoder.network.trainable_variables, first_weights[0], strict=True):
        np.testing.assert_array_equal(np.array(weight), first * (2 if better else 1))
    (member,) = model_of(project).config.members
    assert member.metadata["best"]["validation_cider_d"] == (8.0 if better else 7.0)
    assert ("reward" in member.metadata["best"]) == better
    assert member.metadata["epochs"] == 3
    no_improvement = "the self-critical phase brought no improvement" in capsys.readouterr().out
    assert no_improvement != better
    assert history_of(project, "self_critical") == [("1", "1")]


def test_a_training_that_the_memory_does_not_allow_is_refused_in_one_line(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.system.memory.memory_limit", lambda: 8 * 10**9)
    write_params(project, train=TRAIN_PARAMS | {"units": 16_384})
    message = (
        r"params\.yaml: the training of a decoder with train\.units 16384, train\.embedding_size 8 "
        r"and train\.batch_size 3 takes about \d+\.\d GB of memory, and 8\.0 GB are there: lower"
    )
    with pytest.raises(InputError, match=message):
        train.main()
    assert not (project / "artifacts" / "model").exists()


def test_divergence_in_the_first_phase_names_the_param_to_lower(project: Path) -> None:
    write_params(
        project, train=TRAIN_PARAMS | {"learning_rate": 1e4}, dataset={"root": "no such folder"}
    )
    with pytest.raises(
        InputError, match=r"params\.yaml: the training diverged .*: lower train\.learning_rate"
    ):
        train.main()


def test_divergence_in_the_second_phase_leaves_the_first_phases_result(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_params(project, [1], SECOND_PHASE | {"learning_rate": 1e4})
    train.main()
    (member,) = model_of(project).config.members
    assert "loss" in member.metadata["best"]
    weights = model_of(project).decoders[0].network.get_weights()
    assert all(np.isfinite(array).all() for array in weights)
    output = capsys.readouterr().out
    assert "lower self_critical.learning_rate" in output
    assert "the self-critical phase brought no improvement" in output


def test_a_checkpoint_is_named_by_the_code_that_determines_a_training(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []

    def record(path: Path) -> str:
        hashed.append(path)
        return sha256_file(path)

    monkeypatch.setattr(train, "sha256_file", record)
    train.main()
    assert (project / "artifacts" / "model").is_dir()
    names = {path.relative_to(ROOT).as_posix() for path in hashed}
    # Not the code that reads inputs: what it reads is part of the name itself.
    input_code = ("pipeline/datasets/", "pipeline/stages/", "pipeline/system/")
    imported = {p for p in closure("pipeline.stages.train") if p.count("/") > 1}
    assert {path for path in imported if not path.startswith(input_code)} <= names
    assert {"pipeline/captioner/decoders/lstm.py", "pipeline/metrics/cider.py"} <= names
