import subprocess
from pathlib import Path

import pytest

from pipeline.params import load_params
from pipeline.system import dvc_cache
from tests.support.project import ROOT

DIGEST, OLDER = "ab" * 16, "cd" * 16


def lock(md5: str) -> str:
    return f"stages:\n  extract:\n    outs:\n    - {{path: artifacts/features.h5, md5: {md5}}}\n"


@pytest.fixture
def objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of DVC's objects, with two of them; the last commit recorded the older one."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "cache/files/md5"
    for md5 in (DIGEST, OLDER):
        (folder / md5[:2]).mkdir(parents=True)
        (folder / md5[:2] / md5[2:]).write_text(md5)
    monkeypatch.setattr(dvc_cache, "find_object_folder", lambda: folder)
    monkeypatch.setattr(dvc_cache, "_run", lambda command: lock(OLDER) * (command[0] == "git"))
    return folder


def test_an_output_is_found_in_its_place_and_by_its_recorded_digests(objects: Path) -> None:
    output = Path("artifacts/features.h5")
    Path("dvc.lock").write_text(lock(DIGEST))
    copies = [objects / md5[:2] / md5[2:] for md5 in (DIGEST, OLDER)]
    assert list(dvc_cache.find_copies(output)) == copies
    output.parent.mkdir()
    output.touch()
    assert list(dvc_cache.find_copies(output)) == [output, *copies]
    copies[0].unlink()
    assert list(dvc_cache.find_copies(output)) == [output, copies[1]]
    assert list(dvc_cache.find_copies(Path("artifacts/other.h5"))) == []


@pytest.mark.parametrize(
    "text", ["", "[", "- 1", "stages: 3", "stages: {extract: {outs: [3]}}", lock("../../x"), "\0"]
)
def test_a_lock_that_is_none_of_dvcs_records_nothing(objects: Path, text: str) -> None:
    Path("dvc.lock").write_text(text)
    found = list(dvc_cache.find_copies(Path("artifacts/features.h5")))
    assert found == [objects / OLDER[:2] / OLDER[2:]]


def test_only_files_in_dvcs_own_cache_are_its_objects(objects: Path) -> None:
    assert dvc_cache.is_object(objects / DIGEST[:2] / DIGEST[2:])
    elsewhere = Path("/home/a/files/md5") / DIGEST[:2] / DIGEST[2:]
    for path in (elsewhere, objects / "secret.txt", objects / "ab" / "secret", objects):
        assert not dvc_cache.is_object(path)


def test_the_workspace_of_an_experiment_shares_its_projects_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = load_params(ROOT / "params.yaml").runtime
    workspace = tmp_path / ".dvc/tmp/exps/tmp1"
    workspace.mkdir(parents=True)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(workspace)
    assert runtime.shared_cache == Path(".cache")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert dvc_cache.find_main_project() == tmp_path
    assert runtime.shared_cache == tmp_path / ".cache"
    monkeypatch.chdir(tmp_path)
    assert runtime.shared_cache == Path(".cache")
    absolute = runtime.model_copy(update={"cache": "/disk/cache"})
    monkeypatch.chdir(workspace)
    assert absolute.shared_cache == Path("/disk/cache")


def test_outside_a_project_there_is_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", fail)
    dvc_cache.find_object_folder.cache_clear()
    assert dvc_cache.find_object_folder() is None
    assert list(dvc_cache.find_copies(Path("artifacts/features.h5"))) == []
    dvc_cache.find_object_folder.cache_clear()
