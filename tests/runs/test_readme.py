"""The README and the docs are true: README's commands run, in order, as a newcomer runs them."""

import json
import re
import shlex
import sys
from collections.abc import Iterator
from operator import sub
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from pipeline.cli.main import main
from pipeline.metrics.scorer import METRICS
from pipeline.params import load_params
from pipeline.reporting import baselines
from tests.support.project import ROOT, Project, Run

README = (ROOT / "README.md").read_text("utf-8")
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
STAGES = ["dataset", "sample", "clean", "encoder", "extract", "tokenize", "detector", "train"]
STAGES += ["evaluate"]
# As few scenes, epochs and units as the README's own commands need; the rest is untouched.
TINY: dict[str, dict[str, Any]] = {
    "sample": {"train": 12, "dev": 3, "test": 30},  # of fewer, nothing is said of chance
    "encoder": {"name": "MobileNet", "weights": "random", "input_size": 32},
    "extract": {"dtype": "float32"},  # an untrained MobileNet's vectors are too small for float16
    "train": {"units": 8, "embedding_size": 8, "epochs": 2, "sample_photos": 2},
}

# This environment stands for the one that make would set up: it installs nothing here.
READY = ("-o", f"{sys.prefix}/.ready", "-o", f"{sys.prefix}/.package-ready")
MAKE_REPRO = ("make", "repro", f"VENV={sys.prefix}", *READY)


def console_blocks(text: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a page's console blocks, with the output that the page shows."""
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield command.partition(" # ")[0].strip(), output


BLOCKS = dict(console_blocks(README))


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[str, Run]]:
    """Run every command of the README in a fresh clone, in order; nothing is committed."""
    project = Project.clone(tmp_path_factory.mktemp("newcomer"))
    project.set(TINY)
    runs = {"make repro": project.run(*MAKE_REPRO)}
    for command in BLOCKS:
        if not command.startswith(("make ", ". ")):
            runs[command] = project.run(*shlex.split(command))
    return project, runs


@pytest.mark.timeout(1200)  # two dozen commands of several processes each
def test_every_command_of_the_readme_works_after_make_repro_with_nothing_committed(
    newcomer: tuple[Project, dict[str, Run]],
) -> None:
    project, runs = newcomer
    for command, run in runs.items():
        assert run.code == 0, f"{command}\n{run.output}"
    assert runs["make repro"].stages == STAGES
    assert 'kept as the experiment "first"' in runs["make repro"].output
    assert project.run("git", "log", "--format=%s").output.splitlines() == ["as cloned"]


def test_the_readme_shows_what_its_commands_print(newcomer: tuple[Project, dict[str, Run]]) -> None:
    """Figures differ, since the test's model is tiny; everything else is as shown."""
    _, runs = newcomer
    for command, run in runs.items():
        printed = {_words(line) for line in run.output.splitlines()}
        for line in BLOCKS[command].splitlines():
            if line and line != "…" and not line.startswith(("data/sample/", "{")):
                assert _words(line) in printed, f"{command}\n{line}\n{run.output}"


def test_an_experiment_reruns_what_the_readme_says(
    newcomer: tuple[Project, dict[str, Run]],
) -> None:
    project, runs = newcomer
    assert runs["dvc exp run -S train.embedding_size=128"].stages == ["train", "evaluate"]
    assert "train.embedding_size" in runs["dvc params diff first"].output
    changes = runs["dvc metrics diff first"].output
    assert re.search(r"CIDEr-D shuffled features +[\d.]+ +[\d.]+", changes), changes
    page = (project.folder / "dvc_plots/index.html").read_text("utf-8")
    assert "validation_loss" in page
    # `dvc exp apply first` brings back the first run's model with its params.
    model = json.loads(project.read("artifacts/model/model.json"))
    assert model["metadata"]["params"]["embedding_size"] == 8
    assert "up to date" in project.run("dvc", "status").output


def test_experiments_fit_a_screen_without_the_columns_of_hashes(
    newcomer: tuple[Project, dict[str, Run]],
) -> None:
    project, _ = newcomer
    page = (ROOT / "docs/tutorial.md").read_text("utf-8")
    (command,) = (c for c, _ in console_blocks(page) if c.startswith("dvc exp show"))
    run = project.run("env", "COLUMNS=1000", *shlex.split(command), "--no-pager")
    assert run.code == 0, run.output
    assert "[first]" in run.output
    header = next(line for line in run.output.splitlines() if "Experiment" in line)
    columns = header.split()
    assert columns[:4] == ["Experiment", "Created", "BLEU-4", "CIDEr-D"]
    assert "train.embedding_size" in columns
    assert not [column for column in columns if "/" in column]
    # This test's own params, which differ from the commit, are columns that a user does not have.
    starts = [match.start() for match in re.finditer(r"\S+", header)]
    widths = dict(zip(columns, map(sub, [*starts[1:], len(header)], starts), strict=True))
    ours = {f"{section}.{key}" for section, params in TINY.items() for key in params}
    ours.discard("train.embedding_size")
    assert sum(width for column, width in widths.items() if column not in ours) < 150


def test_a_second_make_repro_does_nothing(newcomer: tuple[Project, dict[str, Run]]) -> None:
    project, _ = newcomer
    run = project.run(*MAKE_REPRO)
    assert run.code == 0, run.output
    assert run.stages == []


def _words(line: str) -> str:
    """Return a line without figures and spacing."""
    return " ".join(re.sub(r"[-+]?\d[\d.,]*|…", "#", line).split())


EVERY_BLOCK = [
    (page, command) for page in PAGES for command, _ in console_blocks(page.read_text("utf-8"))
]


@pytest.mark.parametrize(
    ("page", "command"), EVERY_BLOCK, ids=[f"{p.name}: {c[:60]}" for p, c in EVERY_BLOCK]
)
def test_every_command_of_every_page_exists(
    page: Path, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(command)
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word]
        makefile = (ROOT / "Makefile").read_text("utf-8")
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    elif words[0] == "caption":
        subcommand = main.commands[words[1]]
        options = {name for parameter in subcommand.params for name in parameter.opts}
        options |= {name for parameter in subcommand.params for name in parameter.secondary_opts}
        flags = {word.partition("=")[0] for word in words[2:] if word.startswith("--")}
        assert flags <= options | {"--help"}, page
    elif words[:3] == ["dvc", "exp", "run"]:
        yaml = YAML()
        params = yaml.load(ROOT / "params.yaml")
        for section, key, value in re.findall(r"-S (\w+)\.(\w+)=(\S+)", command):
            assert key in params[section]
            params[section][key] = YAML(typ="safe").load(value)
        yaml.dump(params, tmp_path / "params.yaml")
        monkeypatch.chdir(tmp_path)
        load_params()
    elif words[:3] == ["python", "-m", "benchmarks"] and len(words) > 3:
        assert (ROOT / "benchmarks" / f"{words[3]}.py").is_file()


def test_the_readme_shows_every_row_of_the_scores() -> None:
    shown = [line[:20].strip() for line in BLOCKS["make repro"].splitlines()]
    rows = ["greedy", "beam_3", "beam_5", "beam_40"]
    rows += [baselines.CONSTANT_CAPTION, baselines.RANDOM_CAPTIONS]
    rows += [baselines.SHUFFLED_FEATURES, baselines.HUMAN_AGREEMENT]
    assert [row for row in shown if row in rows] == rows
    (header,) = (line for line in BLOCKS["make repro"].splitlines() if "BLEU-1" in line)
    assert header.split() == [*METRICS, "distinct"]


def test_every_file_in_the_tree_exists_and_every_room_is_in_it() -> None:
    tree = README.split("## Layout and artefacts")[1].split("```")[1]
    folder = ""
    named = set()
    for line in tree.strip().splitlines():
        names = [name.rstrip(",") for name in line.split() if re.fullmatch(r"[\w.]+[/,]?", name)]
        names = names[:1] if not line.strip().startswith("params.py") else names
        folder = folder if line.startswith("  ") else ""
        for name in names:
            assert (ROOT / folder / name).exists(), name
            named.add(name.rstrip("/"))
            if name == "pipeline/":
                folder = name
    rooms = {p.name for p in (ROOT / "pipeline").iterdir() if (p / "__init__.py").exists()}
    assert rooms <= named


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    for target, _, anchor in re.findall(r"\]\((?!http)([^)#]*)(#?)([^)]*)\)", text):
        linked = page.parent / target if target else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text("utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings]
            assert anchor in slugs, f"{target}#{anchor}"


@pytest.mark.parametrize("command", main.commands)
def test_every_command_has_help_an_example_and_a_place_in_the_readme(command: str) -> None:
    assert f"$ caption {command}" in README
    text = CliRunner().invoke(main, [command, "--help"]).output
    assert "Examples:" in text


def test_the_readme_takes_five_minutes_to_read() -> None:
    assert len(README.split()) < 1700
