"""The whole pipeline under DVC, as its users use it, on a tiny encoder and a dozen photos."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.project import Project, Run

ALL = [
    "dataset",
    "sample",
    "clean",
    "encoder",
    "extract",
    "tokenize",
    "detector",
    "train",
    "evaluate",
]


def test_the_first_run_runs_every_stage_and_encodes_every_photo_once(project: Project) -> None:
    run = Run(0, (project.folder / "first-run.txt").read_text("utf-8"))
    assert sorted(run.stages) == sorted(ALL)
    assert run.forward_passes == (12, 1)


def _nothing(_project: Project) -> None:
    pass


def _learning_rate(project: Project) -> None:
    project.set({"train": {"learning_rate": 0.01}})


def _beam_width(project: Project) -> None:
    project.set({"evaluate": {"beam_widths": [2, 3]}})


def _caption(project: Project) -> None:
    captions = project.folder / "data/mine/Flickr8k.token.txt"
    first, _, rest = captions.read_text("utf-8").partition("\n")
    captions.write_text(f"{first.split(chr(9))[0]}\tSomething else altogether .\n{rest}", "utf-8")


def _added_photo(project: Project) -> None:
    images = project.folder / "data/mine/images"
    photo = next(images.glob("*.jpg")).read_bytes()
    # Bytes after the end of the image change the file's digest, not the image.
    (images / "added.jpg").write_bytes(photo + b"\0")


def _renamed_photo(project: Project) -> None:
    root = project.folder / "data/mine"
    old = min((root / "images").glob("scene_train_*.jpg"))
    old.rename(old.with_name("renamed.jpg"))
    for path in root.glob("*.txt"):
        path.write_text(path.read_text("utf-8").replace(old.name, "renamed.jpg"), "utf-8")


def _edit(project: Project, module: str) -> None:
    path = project.folder / module
    path.write_text(path.read_text("utf-8") + "# a comment\n", "utf-8")


def _edited_training(project: Project) -> None:
    _edit(project, "pipeline/captioner/training/cross_entropy.py")


def _edited_dataset_parser(project: Project) -> None:
    _edit(project, "pipeline/datasets/coco.py")


def _edited_word_guidance(project: Project) -> None:
    _edit(project, "pipeline/captioner/generation/word_guidance.py")


def _runtime(project: Project) -> None:
    project.set({"runtime": {"batch_size": 7, "workers": 1}})


@pytest.mark.parametrize(
    ("change", "reruns", "forward_passes"),
    [
        (_nothing, [], (0, 0)),
        (_learning_rate, ["train", "evaluate"], (0, 0)),
        (_beam_width, ["evaluate"], (0, 0)),
        (_caption, ["clean", "extract", "tokenize", "detector", "train", "evaluate"], (0, 0)),
        (_added_photo, ["clean", "extract", "detector", "train", "evaluate"], (1, 1)),
        pytest.param(
            _renamed_photo,
            ["clean", "extract", "tokenize", "detector", "train", "evaluate"],
            (0, 0),
            marks=pytest.mark.soak,  # reruns what a caption does, encodes as little
        ),
        pytest.param(_edited_training, ["train"], (0, 0), marks=pytest.mark.soak),
        (_edited_dataset_parser, ["clean", "extract"], (0, 0)),
        (_edited_word_guidance, ["evaluate"], (0, 0)),
        (_runtime, [], (0, 0)),
    ],
    ids=lambda value: getattr(value, "__name__", "").strip("_"),
)
def test_what_reruns_when(
    project: Project,
    change: Callable[[Project], None],
    reruns: list[str],
    forward_passes: tuple[int, int],
) -> None:
    project.commit("before")
    change(project)
    edited = _uncommitted(project)
    run = project.repro()
    assert sorted(run.stages) == sorted(reruns)
    assert run.forward_passes == forward_passes
    assert "up to date" in project.run("dvc", "status").output
    # A run changes nothing in git but the lock and the scores.
    assert _uncommitted(project) - edited <= {"dvc.lock", "artifacts/evaluation/metrics.json"}


def _uncommitted(project: Project) -> set[str]:
    """Return the files that git reports as new or changed."""
    return set(project.run("git", "status", "--short").output.split()[1::2])


def test_the_same_params_and_data_give_the_same_bytes(project: Project) -> None:
    names = ["features.h5", "captions.parquet", "vocabulary.json", "history.csv"]
    names += ["model/seed_2026.weights.h5", "model/model.json", "evaluation/report.html"]
    names += ["encoder.weights.h5", "encoder.json", "evaluation/predictions.parquet"]
    names += ["self_critical.csv", "detector.h5", "neighbours.h5", "search.json"]
    before = {name: project.read(f"artifacts/{name}") for name in names}
    # Nothing that vectors could be taken from is left.
    for folder in (".cache", ".dvc/cache"):
        shutil.rmtree(project.folder / folder)
    (project.folder / "artifacts/features.h5").unlink()
    assert project.repro("--force").forward_passes[0] == len(
        list((project.folder / "data/mine/images").iterdir())
    )
    assert before == {name: project.read(f"artifacts/{name}") for name in names}


def _one_line_error(run: Run) -> str:
    assert run.code == 1
    assert "Traceback" not in run.output
    return next(line for line in run.output.splitlines() if line.startswith("error: "))


@pytest.mark.parametrize("stage", ["clean", "extract"])
def test_an_unknown_key_in_params_is_a_one_line_error(project: Project, stage: str) -> None:
    path = project.folder / "params.yaml"
    before = path.read_text("utf-8")
    path.write_text(before.replace("min_count", "minimum_count"), "utf-8")
    run = project.run("python", "-m", f"pipeline.stages.{stage}")
    path.write_text(before, "utf-8")
    assert "params.yaml: tokenize.min_count: missing key" in _one_line_error(run)


@pytest.mark.parametrize(
    ("missing", "stage", "fix"),
    [
        ("artifacts/captions.parquet", "tokenize", "dvc repro clean"),
        ("artifacts/encoder.weights.h5", "extract", "dvc repro encoder"),
        ("artifacts/vocabulary.json", "train", "dvc repro tokenize"),
        ("artifacts/vocabulary.json", "detector", "dvc repro tokenize"),
        *(
            # Three times the same for `evaluate`.
            pytest.param(f"artifacts/{file}", "evaluate", fix, marks=pytest.mark.soak)
            for file, fix in (
                ("detector.h5", "dvc repro detector"),
                ("features.h5", "dvc repro extract"),
            )
        ),
        ("artifacts/model/model.json", "evaluate", "dvc repro train"),
    ],
)
def test_a_missing_artifact_names_its_stage(
    project: Project, tmp_path: Path, missing: str, stage: str, fix: str
) -> None:
    path, moved = project.folder / missing, tmp_path / "moved"
    path.rename(moved)
    params = project.folder / "params.yaml"
    before = params.read_bytes()
    # No vectors are known, so that extract needs the encoder.
    project.set({"runtime": {"cache": ".other-cache"}, "extract": {"pooling": "grid"}})
    run = project.run("python", "-m", f"pipeline.stages.{stage}")
    params.write_bytes(before)
    moved.rename(path)
    error = _one_line_error(run)
    folder, _, name = missing.partition("/")
    assert folder in error
    assert name in error
    assert fix in error
