import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli import dvc_status
from pipeline.cli.dvc_status import PhotoStatus, StageStatus, stage_statuses
from pipeline.cli.main import main
from pipeline.errors import InputError
from tests.support.project import Project


@pytest.fixture
def changed(project: Project) -> Iterator[Project]:
    """The project, for a test that changes it; restored afterwards."""
    original = set(photo_paths(project))
    yield project
    for photo in set(photo_paths(project)) - original:
        photo.unlink()
    project.run("git", "checkout", "-q", "params.yaml", "pipeline")
    project.run("dvc", "checkout", "-q")


def photo_paths(project: Project) -> list[Path]:
    return list((project.folder / "data/mine/images").iterdir())


def status_lines(project: Project) -> dict[str, str]:
    """Run `caption status`; return its lines by their first words."""
    run = project.run("caption", "status")
    assert run.code == 0, run.output
    lines = dict(line.split(maxsplit=1) for line in run.output.splitlines() if line.strip())
    assert len(run.output.splitlines()) <= 24  # one screen
    return lines


def test_after_a_run_everything_is_up_to_date_and_computed(project: Project) -> None:
    status = status_lines(project)
    stages = ["dataset", "sample", "clean", "encoder", "extract", "tokenize", "detector", "train"]
    stages.append("evaluate")
    assert {name: status[name] for name in stages} == dict.fromkeys(stages, "up to date")
    assert status["photos"] == f"{len(photo_paths(project))} computed, 0 new, 0 failed"


def test_changes_and_the_stages_after_them_are_listed(changed: Project) -> None:
    changed.set({"train": {"learning_rate": 0.01}})
    module = changed.folder / "pipeline/captioner/training/cross_entropy.py"
    module.write_text(module.read_text("utf-8") + "# a comment\n", "utf-8")
    status = status_lines(changed)
    assert status["train"] == (
        "would run: params.yaml: train modified; pipeline/captioner/training changed"
    )
    assert status["evaluate"] == "would run if the outputs of train change"
    assert status["extract"] == status["tokenize"] == "up to date"


def test_new_and_failed_photos_are_counted(changed: Project) -> None:
    computed = len(photo_paths(changed))
    images = changed.folder / "data/mine/images"
    scene = next(images.glob("*.jpg")).read_bytes()
    (images / "unseen.jpg").write_bytes(scene + b"bytes that no other photo has")
    (images / "broken.jpg").write_bytes(b"")
    status = status_lines(changed)
    assert status["photos"] == f"{computed} computed, 1 new, 1 failed"
    assert status["broken.jpg:"] == "empty file"
    assert status["extract"].startswith("would run: data/mine modified")


def test_a_photo_that_failed_in_the_last_extraction_is_not_new(changed: Project) -> None:
    computed = len(photo_paths(changed))
    images = changed.folder / "data/mine/images"
    scene = next(images.glob("*.jpg")).read_bytes()
    (images / "half.jpg").write_bytes(scene[:-200])
    path = changed.folder / "artifacts/extract.json"
    failed = {"failed": {"half.jpg": "damaged image: cut off"}}
    extraction = json.loads(path.read_text("utf-8")) | failed
    path.unlink()  # it may be a link into DVC's cache
    path.write_text(json.dumps(extraction), "utf-8")
    status = status_lines(changed)
    assert status["photos"] == f"{computed} computed, 0 new, 1 failed"
    assert status["half.jpg:"] == "damaged image: cut off (at the last extraction)"


def test_the_stages_are_listed_even_without_an_encoder(changed: Project) -> None:
    (changed.folder / "artifacts/encoder.json").unlink()
    status = status_lines(changed)
    assert status["encoder"] == "would run: output artifacts/encoder.json deleted"
    assert "run `dvc repro encoder`" in status["photos"]


def test_outside_a_project_the_error_names_the_fix(project: Project) -> None:
    elsewhere = Project(project.folder / "docs")
    run = elsewhere.run("caption", "status")
    assert run.code == 1
    assert "run this in the project's folder" in run.output
    assert "Traceback" not in run.output


def replace_dvc(monkeypatch: pytest.MonkeyPatch, changes: str, dag: str) -> None:
    outputs = {"status": changes, "dag": dag}
    monkeypatch.setattr(dvc_status, "_run_dvc", lambda arguments: outputs[arguments[0]])


def test_several_changed_code_files_are_one_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = (
        '{"b": [{"changed deps": {"pipeline/x": "modified", "pipeline/y.py": "modified",'
        ' "in": "modified",'
        ' "params.yaml": {"b.k": "modified"}}}, {"changed outs": {"out": "deleted"}},'
        ' "changed command"]}'
    )
    dag = 'strict digraph {\n"d";\n"b";\n"c";\n"a" -> "b";\n"b" -> "c";\n"a" -> "c";\n}'
    replace_dvc(monkeypatch, changes, dag)
    code = "pipeline/x and 1 more of the code changed"
    other_reasons = [
        "params.yaml: b.k modified",
        "in modified",
        "output out deleted",
        "changed command",
    ]
    assert stage_statuses() == [
        StageStatus("d", [], []),
        StageStatus("a", [], []),
        StageStatus("b", [*other_reasons, code], []),
        StageStatus("c", [], ["b"]),
    ]


def test_names_and_reasons_that_could_control_a_terminal_are_escaped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photos = PhotoStatus(computed=1, new=0, failed={"\u202ea.jpg": "\x1b[2J\nfine"})
    monkeypatch.setattr(
        dvc_status, "stage_statuses", lambda: [StageStatus("train", ["\x1b[2J"], [])]
    )
    monkeypatch.setattr(dvc_status, "photo_status", lambda *_: photos)
    result = CliRunner().invoke(main, ["status"])
    assert result.exit_code == 0
    assert r"train     would run: \x1b[2J" in result.stdout.splitlines()
    assert r"          \u202ea.jpg: \x1b[2J\nfine" in result.stdout.splitlines()


def test_a_failing_dvc_is_an_error_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.system.dvc.sys.executable", shutil.which("false"))
    with pytest.raises(InputError, match="`dvc status --json` failed: exit code 1"):
        stage_statuses()
