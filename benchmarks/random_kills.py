"""`python -m benchmarks.random_kills --kills 200`: `dvc repro` killed at random moments.

The process group of `dvc repro extract`, in a small project, is killed with SIGKILL and
started again until it ends; then all that it made is removed, and so on. Whenever it ends,
the feature store has to be the one of a run that nothing interrupted.
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

PASS = 4  # photos; two passes are under way at a time
_ENDLESS = 180.0  # seconds after which a run hangs
_STORE = ("artifacts/features.h5", "artifacts/extract.json")
# What is said on the way: the stage begins, a pass is kept, the store is written.
_MARKS = {"stage": "Running stage 'extract'", "pass": "extract: ", "store": " computed in "}
# DVC 3.67 does not write its own files atomically. What it says where it was killed in the
# middle of one, and what a person then does.
_MENDS = {
    "dvc.lock' validation failed": ("git", "checkout", "dvc.lock"),
    "YAML file structure is corrupted": ("git", "checkout", "dvc.lock"),
    "Unable to read RWLock-file": ("rm", ".dvc/tmp/rwlock"),
    "join() argument": ("rm", "-r", ".dvc/cache/runs"),
}


@dataclass
class Summary:
    """What came of the kills.

    Attributes:
        kills: runs killed.
        in_stage: of these, while the stage was at work, or DVC at what it had written.
        completed: runs that came to their end.
        identical: of these, those that left the right features.h5, no leftovers, and a
            project that DVC calls up to date.
        twice: how often a photo went through the encoder again.
        repaired: how often a command of `_MENDS` was needed for a file of DVC's own.
    """

    kills: int = 0
    in_stage: int = 0
    completed: int = 0
    identical: int = 0
    twice: int = 0
    repaired: Counter[str] = field(default_factory=Counter)


@dataclass
class Run:
    """`dvc repro extract`.

    Attributes:
        code: exit code.
        said: line by line.
        marks: what of `_MARKS` was said, and when; each pass with its number.
    """

    code: int = 0
    said: list[str] = field(default_factory=list)
    marks: dict[str, float] = field(default_factory=dict)

    def listen(self, process: subprocess.Popen[str]) -> Iterator[str]:
        """Yield marks when they come."""
        yield self._passed("start")
        for line in process.stdout or ():
            self.said.append(line)
            for name, words in _MARKS.items():
                if words in line:
                    yield self._passed(f"pass {len(self.marks)}" if name == "pass" else name)

    def _passed(self, mark: str) -> str:
        self.marks[mark] = time.monotonic()
        return mark


class _Killer:
    """Kills the group of a process that has not been waited for, as a context manager."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.gave_up = False
        self._process = process
        self._timers: list[threading.Timer] = []

    def kill_in(self, seconds: float) -> None:
        """Kill it then, if it is still there."""
        self._start(seconds, self._kill)

    def __enter__(self) -> Self:
        self._start(_ENDLESS, self._give_up)
        return self

    def __exit__(self, *_: object) -> None:
        for timer in self._timers:
            timer.cancel()
            timer.join()

    def _start(self, seconds: float, do: Callable[[], None]) -> None:
        self._timers.append(threading.Timer(seconds, do))
        self._timers[-1].start()

    def _give_up(self) -> None:
        self.gave_up = True
        self._kill()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


class Victim:
    """A small project that can be killed, and what it makes if it is not.

    Attributes:
        photos: in its data set.
    """

    def __init__(self, folder: Path, photos: int) -> None:
        """Make the project in an empty folder and run it."""
        self.photos = photos
        self._project = Project.create(folder)
        shutil.rmtree(folder / "data" / "mine")
        write_sample(folder / "data" / "mine", train=photos - 2, dev=1, test=1, seed=1)
        runtime = {"engine": "auto", "batch_size": PASS, "progress_seconds": 1e-6}
        self._project.set({"runtime": runtime})
        stages = folder / "dvc.yaml"
        noted = stages.read_text("utf-8").replace(
            "python -m pipeline.stages.extract", "python -m benchmarks.noted_extract"
        )
        stages.write_text(noted, "utf-8")
        self._project.repro("encoder")
        self._project.commit("an encoder")
        self._kept = set(self._cached())
        self._project.repro("extract")  # converts the encoder, where there is OpenVINO
        self.start_afresh()
        self._moments = self._timed()
        self._whole = self._project.read(_STORE[0])
        self.start_afresh()

    def start_afresh(self) -> None:
        """Remove all that the stage made, and what DVC keeps of it."""
        folder = self._project.folder
        shutil.rmtree(folder / ".cache", ignore_errors=True)
        made = [folder / name for name in ("computed", *_STORE)]
        for path in [*made, *set(self._cached()) - self._kept]:
            path.unlink(missing_ok=True)
        for entry in folder.glob(".dvc/cache/runs/*/*"):
            if not list(entry.iterdir()):
                entry.rmdir()
        self._project.run("git", "checkout", "--quiet", "dvc.lock")

    def run(self, draw: random.Random | None = None) -> Run:
        """Run `dvc repro extract`; kill it at a random moment, if it comes to that.

        Args:
            draw: draws a thing that a whole run says, and then how long after it.

        Raises:
            AssertionError: it hangs.
        """
        mark, longest = draw.choice(self._moments) if draw else ("", 0.0)
        delay = draw.uniform(0, longest) if draw else 0.0
        run = Run()
        with self._project.start("dvc", "repro", "extract") as process, _Killer(process) as killer:
            for name in run.listen(process):
                if name == mark:
                    killer.kill_in(delay)
        run.code = process.returncode
        if killer.gave_up:
            raise AssertionError("it hangs:\n" + "".join(run.said))
        return run

    def is_whole(self) -> bool:
        """Whether everything is as a run leaves it that nothing interrupted."""
        folder = self._project.folder
        return (
            self._store() == self._whole
            and not [*folder.glob("artifacts/.tmp-*"), *folder.glob(".cache/**/.tmp-*")]
            and "up to date" in self._project.run("dvc", "status", "extract").output
        )

    def is_spoiled(self) -> bool:
        """Whether there is a feature store, and it is not the one that it has to be."""
        return self._store() not in (None, self._whole)

    def computed(self) -> Counter[str]:
        """Count how often each photo went through the encoder since the last fresh start."""
        return Counter((self._project.folder / "computed").read_text("utf-8").split())

    def fix(self, said: str) -> str:
        """Do what a person does about a file of DVC's own; return the command.

        Raises:
            AssertionError: what was said is of something else.
        """
        for words, command in _MENDS.items():
            if words in said:
                self._project.run(*command)
                return " ".join(command)
        raise AssertionError(said)

    def _store(self) -> bytes | None:
        path = self._project.folder / _STORE[0]
        return path.read_bytes() if path.exists() else None

    def _cached(self) -> list[Path]:
        return [p for p in (self._project.folder / ".dvc/cache").rglob("*") if p.is_file()]

    def _timed(self) -> list[tuple[str, float]]:
        """Run to the end; return what is said, and for how long nothing else is."""
        run = self.run()
        if run.code or len(self.computed()) != self.photos:
            raise AssertionError("".join(run.said))
        times = [*run.marks.values(), time.monotonic()]
        return [
            (mark, end - begin)
            for mark, begin, end in zip(run.marks, times[:-1], times[1:], strict=True)
        ]


def random_kills(victim: Victim, kills: int, seed: int) -> Summary:
    """Kill a project so many times, and let it end after the last.

    Raises:
        AssertionError: a run failed by itself, or left a feature store that is a wrong one.
    """
    draw, found = random.Random(seed), Summary()
    while True:
        run = victim.run(draw if found.kills < kills else None)
        if run.code == -signal.SIGKILL:
            found.kills += 1
            found.in_stage += len(run.marks) > 1
            if victim.is_spoiled():
                raise AssertionError("a killed run left a feature store that is not whole")
        elif run.code == 0:
            found.completed += 1
            found.identical += victim.is_whole()
            found.twice += victim.computed().total() - victim.photos
            if found.kills >= kills:
                return found
            victim.start_afresh()
        else:
            found.repaired[victim.fix("".join(run.said))] += 1


@click.command()
@click.option("--kills", default=200)
@click.option("--photos", default=72)
@click.option("--seed", default=0)
def main(kills: int, photos: int, seed: int) -> None:
    """Print one line; exit code 1 unless every run that came to its end was right."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = random_kills(Victim(Path(folder), photos), kills, seed)
    repaired = ", ".join(f"{count} x `{by}`" for by, count in found.repaired.items()) or "none"
    click.echo(
        f"{found.kills} kills ({found.in_stage} within the stage), "
        f"{found.completed} completed runs, {found.identical} identical, "
        f"{found.twice} photos computed twice ({found.twice / max(found.kills, 1):.1f} a kill; "
        f"{2 * PASS} are under way), files of DVC mended: {repaired}; "
        f"{(time.monotonic() - begun) / 60:.0f} min"
    )
    if found.identical < found.completed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
