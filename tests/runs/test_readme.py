"""The README is true: its commands run, its figures and listings are the real ones."""

import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from pipeline.cli.main import main
from pipeline.metrics.scorer import METRICS
from pipeline.params import load_params
from tests.support.project import ROOT, Project

README = (ROOT / "README.md").read_text("utf-8")
CONSOLES = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line.removeprefix("$ ")
    for console in CONSOLES
    for line in console.splitlines()
    if line.startswith("$ ")
]
# What the tests cannot run: it takes minutes, a download or another shell.
NOT_RUN = ("make ", "unzip ", ". ")
STAGES = ["sample", "clean", "encoder", "extract", "tokenize", "detector", "train", "evaluate"]


def _says(command: str) -> str:
    """Return what the README says a command prints."""
    for console in CONSOLES:
        for block in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
            said, _, output = block.partition("\n")
            if said == command:
                return output
    raise AssertionError(f"the README does not show {command}")


def _tiny(word: str) -> str:
    """Put what a tiny project has in the place of what the README's example has."""
    if word.startswith("data/sample/images/"):
        return "data/sample/images/scene_test_0000.jpg"
    if word == "beam_20":
        return "beam_2"
    if word == "encoder.name=InceptionV3":
        return "encoder.name=MobileNetV2"
    return word


@pytest.mark.parametrize("command", [c for c in dict.fromkeys(COMMANDS) if c[:3] != "dvc"])
def test_every_other_command_exists(project: Project, command: str) -> None:
    if command.startswith("make "):
        target = command.split()[1]
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    elif not command.startswith(NOT_RUN):
        words = [_tiny(word) for word in shlex.split(command)]
        run = project.run(*words)
        assert run.code == 0, run.output


@pytest.mark.timeout(900)  # a dozen commands of several processes: 264 s where others were busy
def test_every_dvc_command_runs(project: Project) -> None:
    project.commit("before")
    said = {}
    for command in dict.fromkeys(c for c in COMMANDS if c.startswith("dvc ")):
        said[command] = run = project.run(*[_tiny(word) for word in shlex.split(command)])
        assert run.code == 0, f"{command}\n{run.output}"
        if command == "dvc exp run -S train.units=128":
            assert run.stages == ["train", "evaluate"]
            model = json.loads(project.read("artifacts/model/model.json"))
            assert model["decoder"]["units"] == 128
            assert "CIDEr-D blind" in project.run("dvc", "metrics", "show").output
    assert "train.units" in said["dvc params diff"].output
    assert "CIDEr-D blind" in said["dvc metrics diff"].output
    assert "index.html" in said["dvc plots show"].output
    page = (project.folder / "dvc_plots/index.html").read_text("utf-8")
    assert "validation_loss" in page
    assert all(stage in said["dvc dag"].output for stage in STAGES)
    assert "train.units" in said["dvc exp show --only-changed"].output
    project.run("git", "checkout", "--", "params.yaml", "dvc.lock", "artifacts")
    project.repro()


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("dvc exp run")])
def test_the_params_of_every_experiment_are_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    changes = re.findall(r"-S (\w+)\.(\w+)=(\S+)", command)
    assert changes
    for section, key, value in changes:
        assert key in params[section]
        params[section][key] = YAML(typ="safe").load(value)
    yaml.dump(params, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    load_params()


def test_the_dag_has_the_real_stages() -> None:
    # DVC draws the edges a little differently from run to run.
    real = Project(ROOT).run("dvc", "dag").output
    stages = sorted(re.findall(r"\| (\w+) \|", real))
    assert stages == sorted(STAGES)
    assert sorted(re.findall(r"\| (\w+) \|", _says("dvc dag"))) == stages


def test_the_scores_are_those_of_the_last_run() -> None:
    path = ROOT / "artifacts/evaluation/metrics.json"
    if not path.exists():
        pytest.skip("`make repro` has not run in this checkout")
    metrics = json.loads(path.read_text("utf-8"))
    (details,) = metrics["details"]
    for search in details["searches"]:
        figures = "".join(f"{search[name]:9.2f}" for name in (*METRICS, "distinct"))
        assert f"{search['name']:20}{figures}" in _says("make repro")


def test_every_file_in_the_tree_exists_and_every_room_is_in_it() -> None:
    tree = README.split("## What is where")[1].split("```")[1]
    folder = ""
    named = set()
    for line in tree.strip().splitlines():
        name = line.split()[0].rstrip(",")
        folder = folder if line.startswith("  ") else ""
        assert (ROOT / folder / name).exists(), name
        named.add(name.rstrip("/"))
        if name == "pipeline/":
            folder = name
    rooms = {p.name for p in (ROOT / "pipeline").iterdir() if (p / "__init__.py").exists()}
    assert rooms <= named


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


@pytest.mark.parametrize("command", main.commands)
def test_every_command_is_in_the_readme_and_has_an_example(command: str) -> None:
    assert f"$ caption {command}" in README
    text = CliRunner().invoke(main, [command, "--help"]).output
    assert "Examples:" in text
