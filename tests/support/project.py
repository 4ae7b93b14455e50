"""A copy of the project as a user has it: a git repository with the user's own photos."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.datasets.sample.drawing import write_sample

ROOT = Path(__file__).parents[2]
SMALL: Mapping[str, Any] = {
    "dataset": {"root": "data/mine"},
    "sample": {"train": 2, "dev": 1, "test": 1},
    "encoder": {"name": "MobileNet", "weights": "random", "input_size": 32},
    # An untrained MobileNet's vectors are too small for float16.
    "extract": {"dtype": "float32"},
    "tokenize": {"min_count": 1},
    "train": {
        "units": 8,
        "embedding_size": 8,
        "epochs": 2,
        "batch_size": 8,
        "sample_photos": 2,
        # As many rows as the samples have: one shape to compile for.
        "select_beam_width": 1,
    },
    "evaluate": {"beam_widths": [2], "max_words": 6},
    # The same everywhere, whether OpenVINO is installed or not.
    "runtime": {"engine": "keras", "progress_seconds": 0.001},
}


# By `make repro` in this checkout; a user's project starts without them.
_WRITTEN_BY_RUNS = ("dvc.lock", "artifacts/evaluation/metrics.json")


@dataclass(frozen=True)
class Run:
    """A finished command."""

    code: int
    output: str

    @property
    def stages(self) -> list[str]:
        """The stages that DVC ran."""
        return re.findall(r"Running stage '(\w+)'", self.output)

    @property
    def forward_passes(self) -> tuple[int, int]:
        """Photos that went through the CNN, and in how many passes; 0 where extract did not run."""
        match = re.search(r"(\d+) computed in (\d+) passes", self.output)
        return (int(match[1]), int(match[2])) if match else (0, 0)


@dataclass(frozen=True)
class Project:
    """A folder with the project's files, committed to git, and a dozen drawn photos."""

    folder: Path

    @staticmethod
    def clone(folder: Path) -> "Project":
        """Copy what git tracks, and commit it as it is: a fresh clone."""
        names = _checked(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        for name in filter(None, names.split("\0")):
            source, target = ROOT / name, folder / name
            if source.is_file() and name not in _WRITTEN_BY_RUNS:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
        project = Project(folder)
        project.run("git", "init", "-q")
        # DVC's experiments are commits too, and git on a new machine may have no identity.
        for key, value in (("name", "A Tester"), ("email", "tester@example.org")):
            project.run("git", "config", f"user.{key}", value)
        project.commit("as cloned")
        return project

    @staticmethod
    def create(folder: Path) -> "Project":
        """Clone, shrink the params, draw the photos, commit."""
        project = Project.clone(folder)
        project.set(SMALL)
        write_sample(folder / "data/mine", train=7, dev=2, test=3, seed=1)
        project.commit("a project")
        return project

    @staticmethod
    def after_first_run(folder: Path) -> "Project":
        """Create a project, run it once, save its output in first-run.txt, commit."""
        project = Project.create(folder)
        (folder / "first-run.txt").write_text(project.repro().output, "utf-8")
        project.commit("the first run")
        return project

    def commit(self, message: str) -> None:
        """Commit everything that is tracked or new."""
        self.run("git", "add", ".")
        self.run("git", "commit", "-q", "--allow-empty", "-m", message)

    def set(self, values: Mapping[str, Any]) -> None:
        """Change params: section to key to value."""
        yaml = YAML()
        params = yaml.load(self.folder / "params.yaml")
        for section, keys in values.items():
            params[section].update(keys)
        yaml.dump(params, self.folder / "params.yaml")

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command in the project, in a process group of its own."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # A shell starts background jobs so that they ignore Ctrl-C; their children inherit it.
            preexec_fn=_restore_ctrl_c,  # noqa: PLW1509  (it touches no lock)
        )

    def run(self, *command: str) -> Run:
        """Run a command in the project to its end."""
        with self.start(*command) as process:
            output, _ = process.communicate()
        return Run(process.returncode, output)

    def repro(self, *arguments: str) -> Run:
        """Run `dvc repro`; it has to succeed."""
        run = self.run("dvc", "repro", *arguments)
        assert run.code == 0, run.output
        return run

    def read(self, name: str) -> bytes:
        """Return a file's bytes."""
        return (self.folder / name).read_bytes()


def _restore_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def environment() -> dict[str, str]:
    """The environment of a user who activated the project's virtual environment."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    tools = str(Path(sys.executable).parent)
    # DVC runs a stage in the user's shell; a bare environment's default is not one people use.
    shell = {"SHELL": bash} if (bash := shutil.which("bash")) else {}
    return variables | shell | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}


def _checked(command: list[str]) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
