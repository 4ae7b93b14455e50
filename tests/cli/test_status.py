import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli import dvc_status
from pipeline.cli.dvc_status import StageStatus, stage_statuses
from pipeline.errors import InputError
from tests.support.project import Project


@pytest.fixture
def changed(project: Project) -> Iterator[Project]:
    """The project, to be changed; put back afterwards."""
    before = set(photos(project))
    yield project
    for photo in set(photos(project)) - before:
        photo.unlink()
    project.run("git", "checkout", "-q", "params.yaml", "pipeline")
    project.run("dvc", "checkout", "-q")


def photos(project: Project) -> list[Path]:
    return list((project.folder / "data/mine/images").iterdir())


def lines(project: Project) -> dict[str, str]:
    """Run `caption status`; return its lines by their first words."""
    run = project.run("caption", "status")
    assert run.code == 0, run.output
    found = dict(line.split(maxsplit=1) for line in run.output.splitlines() if line.strip())
    assert len(run.output.splitlines()) <= 24  # one screen
    return found


def test_after_a_run_everything_is_up_to_date_and_computed(project: Project) -> None:
    found = lines(project)
    stages = ["sample", "clean", "encoder", "extract", "tokenize", "detector", "train", "evaluate"]
    assert {name: found[name] for name in stages} == dict.fromkeys(stages, "up to date")
    assert found["photos"] == f"{len(photos(project))} computed, 0 new, 0 unreadable"


def test_what_changed_is_named_and_what_follows_told(changed: Project) -> None:
    changed.set({"train": {"learning_rate": 0.01}})
    module = changed.folder / "pipeline/captioner/training/cross_entropy.py"
    module.write_text(module.read_text("utf-8") + "# a comment\n", "utf-8")
    found = lines(changed)
    assert found["train"] == (
        "would run: params.yaml: train modified; "
        "pipeline/captioner/training/cross_entropy.py changed"
    )
    assert found["evaluate"] == "would run if the outputs of train change"
    assert found["extract"] == found["tokenize"] == "up to date"


def test_new_and_unreadable_photos_are_counted(changed: Project) -> None:
    computed = len(photos(changed))
    images = changed.folder / "data/mine/images"
    scene = next(images.glob("*.jpg")).read_bytes()
    (images / "unseen.jpg").write_bytes(scene + b"of other bytes than any before")
    (images / "broken.jpg").write_bytes(b"")
    found = lines(changed)
    assert found["photos"] == f"{computed} computed, 1 new, 1 unreadable"
    assert found["broken.jpg:"] == "empty file"
    assert found["extract"].startswith("would run: data/mine modified")


def test_what_the_last_extraction_refused_is_not_new(changed: Project) -> None:
    computed = len(photos(changed))
    images = changed.folder / "data/mine/images"
    scene = next(images.glob("*.jpg")).read_bytes()
    (images / "half.jpg").write_bytes(scene[:-200])
    last = changed.folder / "artifacts/extract.json"
    told = json.loads(last.read_text("utf-8")) | {"failed": {"half.jpg": "damaged image: cut off"}}
    last.unlink()  # it may be a link into DVC's cache
    last.write_text(json.dumps(told), "utf-8")
    found = lines(changed)
    assert found["photos"] == f"{computed} computed, 0 new, 1 unreadable"
    assert found["half.jpg:"] == "damaged image: cut off (at the last extraction)"


def test_without_an_encoder_the_rest_is_told(changed: Project) -> None:
    (changed.folder / "artifacts/encoder.json").unlink()
    found = lines(changed)
    assert found["encoder"] == "would run: output artifacts/encoder.json deleted"
    assert "run `dvc repro encoder`" in found["photos"]


def test_outside_a_project_it_says_where_to_go(project: Project) -> None:
    elsewhere = Project(project.folder / "docs")
    run = elsewhere.run("caption", "status")
    assert run.code == 1
    assert "run this in the project's folder" in run.output
    assert "Traceback" not in run.output


def _stand_in(monkeypatch: pytest.MonkeyPatch, changes: str, dag: str) -> None:
    answers = {"status": changes, "dag": dag}
    monkeypatch.setattr(dvc_status, "_dvc", lambda arguments: answers[arguments[0]])


def test_many_changed_files_of_code_are_one_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = (
        '{"b": [{"changed deps": {"x.py": "modified", "y.py": "modified", "in": "modified",'
        ' "params.yaml": {"b.k": "modified"}}}, {"changed outs": {"out": "deleted"}},'
        ' "changed command"]}'
    )
    dag = 'strict digraph {\n"d";\n"b";\n"c";\n"a" -> "b";\n"b" -> "c";\n"a" -> "c";\n}'
    _stand_in(monkeypatch, changes, dag)
    code = "x.py and 1 more files of code changed"
    wanted = ["params.yaml: b.k modified", "in modified", "output out deleted", "changed command"]
    assert stage_statuses() == [
        StageStatus("d", [], []),
        StageStatus("a", [], []),
        StageStatus("b", [*wanted, code], []),
        StageStatus("c", [], ["b"]),
    ]


def test_what_dvc_cannot_say_is_an_error_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.status.sys.executable", shutil.which("false"))
    with pytest.raises(InputError, match="`dvc status --json` failed: exit code 1"):
        stage_statuses()
