from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.support.closure import ROOT, closure

DVC = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text("utf-8"))
STAGES = DVC["stages"]


@pytest.mark.parametrize("stage", STAGES)
def test_the_code_a_stage_depends_on_is_its_import_closure(stage: str) -> None:
    listed = {dep for dep in STAGES[stage]["deps"] if dep.endswith(".py")}
    expected = closure(f"pipeline.stages.{stage}")
    lines = "\n".join(f"      - {name}" for name in sorted(expected))
    assert listed == expected, f"the code dependencies of {stage} should be\n{lines}"


def test_every_stage_is_a_module_of_its_name_without_arguments() -> None:
    modules = {path.stem for path in (ROOT / "pipeline/stages").glob("*.py")} - {"__init__"}
    assert modules == set(STAGES)
    for name, stage in STAGES.items():
        assert stage["cmd"] == f"python -m pipeline.stages.{name}"


def test_package_files_hold_no_code_so_no_stage_need_depend_on_them() -> None:
    for path in (ROOT / "pipeline").rglob("__init__.py"):
        code = path.read_text("utf-8").strip()
        assert not code or (code.startswith('"""') and code.count('"""') == 2)


def test_no_stage_tracks_what_changes_no_result() -> None:
    for stage in STAGES.values():
        assert "runtime" not in stage["params"]


def test_the_report_reruns_with_its_template() -> None:
    templates = {
        path.relative_to(ROOT).as_posix() for path in Path(ROOT / "pipeline").rglob("*.html")
    }
    assert templates <= set(STAGES["evaluate"]["deps"])
