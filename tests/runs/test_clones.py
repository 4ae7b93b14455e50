"""A data set in clones, other checkouts and experiments' workspaces, and where it is missing."""

import shutil
from pathlib import Path

import pytest

from tests.support.project import Project


def add_photo(project: Project) -> None:
    """Add a photo that no checkout has encoded."""
    images = project.folder / "data/mine/images"
    # Bytes after the end of the image change the file's digest, not the image.
    (images / "added.jpg").write_bytes(next(images.glob("*.jpg")).read_bytes() + b"\0")


@pytest.fixture(scope="module")
def clone(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A colleague's clone of the project, after `dvc pull`; the photos are tracked by DVC."""
    folder = tmp_path_factory.mktemp("clones")
    owner, clone = Project(folder / "owner"), Project(folder / "clone")
    shutil.copytree(project.folder, owner.folder, symlinks=True)
    added = owner.run("dvc", "add", "data/mine")
    assert added.code == 0, added.output
    owner.run("dvc", "remote", "add", "-d", "store", str(folder / "store"))
    owner.commit("photos and a remote")
    owner.run("dvc", "push", "-q")
    owner.run("git", "clone", "-q", str(owner.folder), str(clone.folder))
    for key, value in (("name", "A Colleague"), ("email", "colleague@example.org")):
        clone.run("git", "config", f"user.{key}", value)
    pulled = clone.run("dvc", "pull")
    assert pulled.code == 0, pulled.output
    return clone


def test_in_a_clone_a_new_photo_costs_one_forward_pass(clone: Project) -> None:
    assert not (clone.folder / ".cache").exists()
    add_photo(clone)
    assert "12 computed, 1 new, 0 failed" in clone.run("caption", "status").output
    assert clone.repro("extract").forward_passes == (1, 1)
    assert clone.repro("--force", "--single-item", "extract").forward_passes == (0, 0)


def test_an_experiment_in_a_temporary_workspace_finds_photos_and_vectors(clone: Project) -> None:
    clone.commit("a photo more")
    shutil.rmtree(clone.folder / ".cache", ignore_errors=True)
    arguments = ("-S", "extract.max_failed_share=0.2", "extract")
    run = clone.run("dvc", "exp", "run", "--temp", *arguments)
    assert run.code == 0, run.output
    assert run.forward_passes == (0, 0)
    assert "13 photos: 0 computed in 0 passes, 13 cached, 0 failed" in run.output
    assert list((clone.folder / ".cache/features").iterdir())  # shared with the workspace


def test_photos_that_dvc_links_to_its_cache_are_photos(clone: Project) -> None:
    clone.run("dvc", "config", "--local", "cache.type", "symlink")
    clone.run("dvc", "checkout", "--relink")
    photo = next((clone.folder / "data/mine/images").iterdir())
    assert photo.is_symlink()
    run = clone.repro("--force", "--single-item", "extract")
    assert " 0 failed" in run.output
    assert (clone.folder / "artifacts/features.h5").is_symlink()
    assert clone.run("dvc", "status", "extract").output.count("modified") == 0


def test_a_wrong_root_names_the_param_and_leaves_what_was_there(project: Project) -> None:
    names = ["captions.parquet", "captions.json", "features.h5", "extract.json"]
    before = {name: project.read(f"artifacts/{name}") for name in names}
    project.set({"dataset": {"root": "data/mien"}})
    run = project.run("dvc", "repro", "extract")
    project.set({"dataset": {"root": "data/mine"}})
    assert run.code != 0
    assert "error: params.yaml: dataset.root: data/mien is not here: set it to" in run.output
    assert before == {name: project.read(f"artifacts/{name}") for name in names}


def test_a_data_set_that_is_gone_costs_no_output(project: Project, tmp_path: Path) -> None:
    names = ["captions.parquet", "captions.json", "features.h5", "extract.json"]
    before = {name: project.read(f"artifacts/{name}") for name in names}
    moved = shutil.move(project.folder / "data/mine", tmp_path)
    runs = [project.run("dvc", "repro", "--single-item", name) for name in ("clean", "extract")]
    shutil.move(moved, project.folder / "data/mine")
    assert [run.code == 0 for run in runs] == [False, False]
    assert before == {name: project.read(f"artifacts/{name}") for name in names}


def test_an_experiment_whose_photos_nobody_tracks_says_what_to_do(project: Project) -> None:
    arguments = ("-S", "clean.split_seed=5", "clean")
    run = project.run("dvc", "exp", "run", "--temp", *arguments)
    assert run.code != 0
    assert "data/mine is not in this experiment's workspace" in run.output
    assert "run `dvc add data/mine` and `git add data/mine.dvc data/.gitignore`" in run.output
