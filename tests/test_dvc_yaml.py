from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.size_defaults import SIZE_DEFAULTS
from tests.support.closure import ROOT, closure

TEXT = (ROOT / "dvc.yaml").read_text("utf-8")
STAGES = YAML(typ="safe").load(TEXT)["stages"]

# Stages import these, but an edit of them changes no output.
DECIDE_NO_OUTPUT = {
    "pipeline/__init__.py",  # HDF5's locks
    "pipeline/system/dvc.py",  # where DVC keeps its cache
    "pipeline/system/dvc_cache.py",  # where vectors lie that are checked when they are read
    "pipeline/errors.py",  # the text of errors
    "pipeline/system/memory.py",  # refuses sizes
    "pipeline/params.py",  # checks the params, whose values dvc.yaml tracks by themselves
    "pipeline/progress.py",  # lines on standard error
    "pipeline/stages/__init__.py",  # Ctrl-C during imports
    "pipeline/stages/run.py",  # exit codes
    "pipeline/system/streams.py",  # how text is printed
    "pipeline/system/failures.py",  # the text of errors, and signals
}


def code_deps(stage: str) -> list[str]:
    """The files and folders of code that a stage depends on."""
    return [dep for dep in STAGES[stage]["deps"] if dep.startswith("pipeline/")]


def files_below(dep: str) -> set[str]:
    """Return a file itself, or the modules and templates below a folder, as POSIX paths."""
    path = ROOT / dep
    paths = [path] if path.is_file() else path.rglob("*.*")
    suffixes = (".py", ".html", ".css", ".js")
    return {p.relative_to(ROOT).as_posix() for p in paths if p.suffix in suffixes}


@pytest.mark.parametrize("stage", STAGES)
def test_the_code_deps_of_a_stage_cover_its_import_closure(stage: str) -> None:
    covered = set().union(*map(files_below, code_deps(stage)))
    uncovered = closure(f"pipeline.stages.{stage}") - covered - DECIDE_NO_OUTPUT
    if not SIZE_DEFAULTS.keys() & set(STAGES[stage]["params"]):
        uncovered.discard("pipeline/size_defaults.py")  # it replaces params of other stages
    lines = "\n".join(f"      - {name}" for name in sorted(uncovered))
    assert not uncovered, f"the code dependencies of {stage} lack\n{lines}"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_needs_every_code_dep_and_most_of_a_folder(stage: str) -> None:
    imported = closure(f"pipeline.stages.{stage}")
    for dep in code_deps(stage):
        assert (ROOT / dep).exists(), f"{stage}: {dep} does not exist"
        modules = {
            name for name in files_below(dep) if name.endswith(".py") and "__init__" not in name
        }
        needed = modules & imported
        assert 2 * len(needed) > len(modules), f"{stage}: {dep}: list {sorted(needed)} instead"


@pytest.mark.parametrize("stage", STAGES)
def test_code_deps_are_sorted_and_none_lies_below_another(stage: str) -> None:
    deps = code_deps(stage)
    assert deps == sorted(set(deps))
    assert not [(a, b) for a in deps for b in deps if b.startswith(f"{a}/")]


def test_no_stage_depends_on_a_module_that_decides_no_output() -> None:
    for name in DECIDE_NO_OUTPUT:
        assert (ROOT / name).is_file()
        assert name not in {file for stage in STAGES for file in code_deps(stage)}


def test_every_stage_is_a_module_of_its_name_without_arguments() -> None:
    modules = {path.stem for path in (ROOT / "pipeline/stages").glob("*.py")} - {"__init__", "run"}
    assert modules == set(STAGES)
    for name, stage in STAGES.items():
        assert stage["cmd"] == f"python -m pipeline.stages.{name}"


def test_package_files_hold_no_code_so_no_stage_need_depend_on_them() -> None:
    without_code = set((ROOT / "pipeline").rglob("__init__.py")) - {
        *(ROOT / name for name in DECIDE_NO_OUTPUT),
        ROOT / "pipeline/cli/__init__.py",  # imported by no stage
    }
    for path in without_code:
        code = path.read_text("utf-8").strip()
        assert not code or (code.startswith('"""') and code.count('"""') == 2)


def test_no_stage_tracks_what_changes_no_result() -> None:
    for stage in STAGES.values():
        assert "runtime" not in stage["params"]


def test_the_report_reruns_with_its_templates() -> None:
    templates = {
        path.relative_to(ROOT).as_posix()
        for suffix in ("html", "css", "js")
        for path in Path(ROOT / "pipeline").rglob(f"*.{suffix}")
    }
    assert templates
    assert templates <= set().union(*map(files_below, code_deps("evaluate")))


def test_dvc_yaml_can_be_read_in_one_go() -> None:
    assert len(TEXT.splitlines()) < 200
