from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.stages import dataset
from tests.support.project import ROOT


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose data set is data/mine."""
    text = (ROOT / "params.yaml").read_text("utf-8")
    (tmp_path / "params.yaml").write_text(text.replace("data/sample ", "data/mine "), "utf-8")
    (tmp_path / "data").mkdir()
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def error() -> str:
    with pytest.raises(InputError) as caught:
        dataset.main()
    assert not dataset.OUTPUT.exists()
    return str(caught.value)


def test_a_data_set_that_is_there_is_recorded(folder: Path) -> None:
    (folder / "data/mine").mkdir()
    dataset.main()
    first = dataset.OUTPUT.read_bytes()
    assert b'"root": "data/mine"' in first
    dataset.main()
    assert dataset.OUTPUT.read_bytes() == first


def test_the_drawn_sample_is_drawn_later(folder: Path) -> None:
    (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text("utf-8"), "utf-8")
    dataset.main()
    assert dataset.OUTPUT.exists()


def test_a_missing_data_set_names_the_param(folder: Path) -> None:
    message = error()
    assert message.startswith("params.yaml: dataset.root: data/mine is not here: set it to the ")
    (folder / "data/mine").touch()
    assert "data/mine is not a folder: set it to the folder that holds" in error()


def test_a_data_set_that_dvc_tracks_is_to_be_pulled(folder: Path) -> None:
    (folder / "data/mine.dvc").touch()
    assert "data/mine.dvc is: run `dvc pull data/mine.dvc`" in error()


def test_in_the_workspace_of_an_experiment_it_has_to_be_tracked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = folder / ".dvc/tmp/exps/tmp1"
    workspace.mkdir(parents=True)
    (workspace / "params.yaml").write_bytes((folder / "params.yaml").read_bytes())
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("DVC_ROOT", str(folder))
    (folder / "data/mine").mkdir()
    message = error()
    assert "data/mine is not in this experiment's workspace" in message
    assert "`dvc add data/mine` and `git add data/mine.dvc data/.gitignore`" in message
