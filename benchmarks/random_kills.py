"""`python -m benchmarks.random_kills --kills 200`: kills `dvc repro` at random moments.

In a small project, the process group of `dvc repro extract` is killed with SIGKILL and started
again until it completes. Then everything that it made is removed, and the next run begins. After
each completed run, the feature store must equal that of an uninterrupted run.
"""

import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import click

from pipeline.datasets.sample.drawing import write_sample
from tests.support.project import Project

BATCH_SIZE = 4  # photos; two batches are in progress at a time
_TIMEOUT = 180.0  # seconds after which a run counts as hanging
_STORE = ("artifacts/features.h5", "artifacts/extract.json")
# Output that marks progress: the stage starts, a batch is saved, the store is written.
_MARKS = {"stage": "Running stage 'extract'", "batch": "extract: ", "store": " computed in "}
# DVC 3.67 does not write its own files atomically. Its errors if it was killed while it wrote one,
# and the command with which a user repairs that file.
_DVC_FIXES = {
    "dvc.lock' validation failed": ("git", "checkout", "dvc.lock"),
    "YAML file structure is corrupted": ("git", "checkout", "dvc.lock"),
    "Unable to read RWLock-file": ("rm", ".dvc/tmp/rwlock"),
    "join() argument": ("rm", "-r", ".dvc/cache/runs"),
}


@dataclass
class KillSummary:
    """The results of the kills.

    Attributes:
        kills: number of killed runs.
        in_stage: of these, how many were killed while the stage ran or DVC saved its outputs.
        completed: number of runs that completed.
        identical: of these, how many left the right features.h5, no temporary files, and a
            project that DVC considers up to date.
        recomputed: how often a photo went through the encoder again.
        repaired: how often each command of `_DVC_FIXES` was needed.
    """

    kills: int = 0
    in_stage: int = 0
    completed: int = 0
    identical: int = 0
    recomputed: int = 0
    repaired: Counter[str] = field(default_factory=Counter)


@dataclass
class ReproRun:
    """A run of `dvc repro extract`.

    Attributes:
        code: exit code.
        output: its lines.
        marks: the time of each mark of `_MARKS`; those of batches are numbered.
    """

    code: int = 0
    output: list[str] = field(default_factory=list)
    marks: dict[str, float] = field(default_factory=dict)

    def follow(self, process: subprocess.Popen[str]) -> Iterator[str]:
        """Yield each mark when it appears."""
        yield self._add_mark("start")
        for line in process.stdout or ():
            self.output.append(line)
            for name, words in _MARKS.items():
                if words in line:
                    yield self._add_mark(f"batch {len(self.marks)}" if name == "batch" else name)

    def _add_mark(self, mark: str) -> str:
        self.marks[mark] = time.monotonic()
        return mark


class _Killer:
    """Kills a process group after a delay, or when it hangs; a context manager."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.timed_out = False
        self._process = process
        self._timers: list[threading.Timer] = []

    def kill_in(self, seconds: float) -> None:
        """Kill the group after that time, if it still runs."""
        self._start_timer(seconds, self._kill)

    def __enter__(self) -> Self:
        self._start_timer(_TIMEOUT, self._time_out)
        return self

    def __exit__(self, *_: object) -> None:
        for timer in self._timers:
            timer.cancel()
            timer.join()

    def _start_timer(self, seconds: float, action: Callable[[], None]) -> None:
        self._timers.append(threading.Timer(seconds, action))
        self._timers[-1].start()

    def _time_out(self) -> None:
        self.timed_out = True
        self._kill()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


class KilledProject:
    """A small project whose runs are killed, and the store of an uninterrupted run.

    Attributes:
        photos: number of photos in its data set.
    """

    def __init__(self, folder: Path, photos: int) -> None:
        """Make the project in an empty folder and run it once."""
        self.photos = photos
        self._project = Project.create(folder)
        shutil.rmtree(folder / "data" / "mine")
        write_sample(folder / "data" / "mine", train=photos - 2, dev=1, test=1, seed=1)
        runtime = {"engine": "auto", "batch_size": BATCH_SIZE, "progress_seconds": 1e-6}
        self._project.set({"runtime": runtime})
        stages = folder / "dvc.yaml"
        logged = stages.read_text("utf-8").replace(
            "python -m pipeline.stages.extract", "python -m benchmarks.logged_extract"
        )
        stages.write_text(logged, "utf-8")
        self._project.repro("encoder")
        self._project.commit("an encoder")
        self._initial_cache = set(self._cached_files())
        self._project.repro("extract")  # converts the encoder, if OpenVINO is installed
        self.reset()
        self._moments = self._time_moments()
        self._expected_store = self._project.read(_STORE[0])
        self.reset()

    def reset(self) -> None:
        """Remove everything that the stage made, and DVC's copies of it."""
        folder = self._project.folder
        shutil.rmtree(folder / ".cache", ignore_errors=True)
        outputs = [folder / name for name in ("computed", *_STORE)]
        for path in [*outputs, *set(self._cached_files()) - self._initial_cache]:
            path.unlink(missing_ok=True)
        for entry in folder.glob(".dvc/cache/runs/*/*"):
            if not list(entry.iterdir()):
                entry.rmdir()
        self._project.run("git", "checkout", "--quiet", "dvc.lock")

    def run(self, generator: random.Random | None = None) -> ReproRun:
        """Run `dvc repro extract`, and kill it at a random moment if it gets that far.

        Args:
            generator: draws a mark of an uninterrupted run and a delay after it; None: no kill.

        Raises:
            AssertionError: the run hangs.
        """
        kill_mark, max_delay = generator.choice(self._moments) if generator else ("", 0.0)
        delay = generator.uniform(0, max_delay) if generator else 0.0
        run = ReproRun()
        with self._project.start("dvc", "repro", "extract") as process, _Killer(process) as killer:
            for mark in run.follow(process):
                if mark == kill_mark:
                    killer.kill_in(delay)
        run.code = process.returncode
        if killer.timed_out:
            raise AssertionError("the run hangs:\n" + "".join(run.output))
        return run

    def is_identical(self) -> bool:
        """Return whether everything is as after an uninterrupted run."""
        folder = self._project.folder
        return (
            self._read_store() == self._expected_store
            and not [*folder.glob("artifacts/.tmp-*"), *folder.glob(".cache/**/.tmp-*")]
            and "up to date" in self._project.run("dvc", "status", "extract").output
        )

    def has_wrong_store(self) -> bool:
        """Return whether there is a feature store other than the expected one."""
        return self._read_store() not in (None, self._expected_store)

    def computed(self) -> Counter[str]:
        """Count how often each photo went through the encoder since the last reset."""
        return Counter((self._project.folder / "computed").read_text("utf-8").split())

    def repair(self, output: str) -> str:
        """Repair one of DVC's own files as a user would; return the command.

        Raises:
            AssertionError: the output shows some other error.
        """
        for words, command in _DVC_FIXES.items():
            if words in output:
                self._project.run(*command)
                return " ".join(command)
        raise AssertionError(output)

    def _read_store(self) -> bytes | None:
        path = self._project.folder / _STORE[0]
        return path.read_bytes() if path.exists() else None

    def _cached_files(self) -> list[Path]:
        return [p for p in (self._project.folder / ".dvc/cache").rglob("*") if p.is_file()]

    def _time_moments(self) -> list[tuple[str, float]]:
        """Run without a kill; return each mark and the seconds until the next one."""
        run = self.run()
        if run.code or len(self.computed()) != self.photos:
            raise AssertionError("".join(run.output))
        times = [*run.marks.values(), time.monotonic()]
        return [
            (mark, end - begin)
            for mark, begin, end in zip(run.marks, times[:-1], times[1:], strict=True)
        ]


def kill_randomly(project: KilledProject, kills: int, seed: int) -> KillSummary:
    """Kill the runs of a project so many times, then let the last one complete.

    Raises:
        AssertionError: a run failed by itself, or a killed run left a wrong feature store.
    """
    generator, summary = random.Random(seed), KillSummary()
    while True:
        run = project.run(generator if summary.kills < kills else None)
        if run.code == -signal.SIGKILL:
            summary.kills += 1
            summary.in_stage += len(run.marks) > 1
            if project.has_wrong_store():
                raise AssertionError("a killed run left a wrong feature store")
        elif run.code == 0:
            summary.completed += 1
            summary.identical += project.is_identical()
            summary.recomputed += project.computed().total() - project.photos
            if summary.kills >= kills:
                return summary
            project.reset()
        else:
            summary.repaired[project.repair("".join(run.output))] += 1


@click.command()
@click.option("--kills", default=200)
@click.option("--photos", default=72)
@click.option("--seed", default=0)
def main(kills: int, photos: int, seed: int) -> None:
    """Print one line of results; exit code 1 unless every completed run was right."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        summary = kill_randomly(KilledProject(Path(folder), photos), kills, seed)
    repairs = [f"{count} x `{command}`" for command, count in summary.repaired.items()]
    per_kill = summary.recomputed / max(summary.kills, 1)
    click.echo(
        f"{summary.kills} kills ({summary.in_stage} within the stage), "
        f"{summary.completed} completed runs, {summary.identical} identical, "
        f"{summary.recomputed} photos computed again ({per_kill:.1f} per kill; "
        f"{2 * BATCH_SIZE} are in progress), repairs of DVC's files: "
        f"{', '.join(repairs) or 'none'}; {(time.monotonic() - start) / 60:.0f} min"
    )
    if summary.identical < summary.completed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
