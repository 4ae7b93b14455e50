"""What every benchmark needs: rounds of interleaved measurements, and a table of rows."""

import multiprocessing
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROUNDS = 5

Measure = Callable[[], float]


@dataclass(frozen=True)
class Row:
    """A line of the table: what was compared, what came out, what was to be reached."""

    what: str
    found: str
    goal: str = ""


def interleaved(measures: Mapping[str, Measure], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Take every measurement once a round, in turn, so that all see the same noise."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds):
        for name, measure in measures.items():
            found[name].append(measure())
            print(f"  round {number + 1} of {rounds}: {name} {found[name][-1]:.3g}", flush=True)
    return found


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Return the median, over the rounds, of the ratio of two measurements."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def seconds(command: Sequence[str], folder: Path) -> float:
    """Run a command to its end; return the wall time."""
    start = time.perf_counter()
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603  (our own commands)
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{run.stdout}{run.stderr}")
    return time.perf_counter() - start


def caption(*arguments: str) -> list[str]:
    """Return the command line of `caption` with this Python."""
    return [sys.executable, "-c", "from pipeline.cli.main import main; main()", *arguments]


class Worker:
    """A measurement in a process of its own: no other's threads or imports disturb it.

    `make(*arguments)` is called there once and returns the function that `run` calls.
    """

    def __init__(self, make: Callable[..., Callable[..., Any]], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments))

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.send(None)
        self._process.join()

    def run(self, *arguments: Any) -> Any:
        """Call the function there; return what it returns."""
        self._connection.send(arguments)
        return self._connection.recv()


def _serve(
    connection: Connection, make: Callable[..., Callable[..., Any]], arguments: tuple[Any, ...]
) -> None:
    function = make(*arguments)
    while (call := connection.recv()) is not None:
        connection.send(function(*call))
