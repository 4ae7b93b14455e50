import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.captioner.checkpoint import Checkpoint
from pipeline.captioner.compiled import load_compiled
from pipeline.captioner.model import Model
from pipeline.captions.vocabulary import Vocabulary
from pipeline.errors import InputError
from pipeline.features import graphs
from pipeline.stages import tokenize, train
from tests.captioner_fixtures import (
    EVEN,
    EVEN_DEV,
    PHOTOS,
    Killed,
    make_store,
    vectors,
    write_captions,
    write_params,
)

TINY: dict[str, Any] = {
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
    assert model.description.facts["params"]["units"] == 8
    facts = model.description.members[0].facts
    assert facts["epochs"] == 2
    assert facts["stopped"] == "all 2 epochs done"
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
    (decoder,), (member,) = model.decoders, model.description.members
    compiled = load_compiled(project / "artifacts", model.description, member, lambda: decoder)
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    for array, other in zip(compiled.begin(vectors()), decoder.begin(vectors()), strict=True):
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
    assert (project / "artifacts" / "samples" / "seed_2026" / "epoch_001.txt").exists()
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
