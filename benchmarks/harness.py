"""The benchmarks' common parts: interleaved rounds, timers, processes, and the rows of results."""

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
    """A row of the results.

    Attributes:
        name: what was measured.
        result: the figures.
        target: what the project aims for; empty if nothing.
    """

    name: str
    result: str
    target: str = ""


def measure_interleaved(
    measures: Mapping[str, Measure], rounds: int = ROUNDS
) -> dict[str, list[float]]:
    """Take each measurement once per round, in turn, so that all see the same noise."""
    values: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds):
        for name, measure in measures.items():
            values[name].append(measure())
            print(f"  round {number + 1} of {rounds}: {name} {values[name][-1]:.3g}", flush=True)
    return values


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Return the median over the rounds of the ratio of two measurements."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def make_timer(work: Callable[[], object]) -> Measure:
    """Return a function that does the work and returns its wall time in seconds."""

    def measure() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return measure


def time_command(command: Sequence[str], folder: Path) -> float:
    """Run a command to its end; return its wall time in seconds."""
    start = time.perf_counter()
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603  (our own commands)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{result.stdout}{result.stderr}")
    return time.perf_counter() - start


def caption_command(*arguments: str) -> list[str]:
    """Return the command line that runs `caption` with this Python."""
    return [sys.executable, "-c", "from pipeline.cli.main import main; main()", *arguments]


class MeasuringProcess:
    """Measures in a process of its own, undisturbed by other measurements' threads and imports.

    There, `make(*arguments)` is called once and returns the function that `run` calls.
    """

    def __init__(self, make: Callable[..., Callable[..., Any]], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, child_connection = context.Pipe()
        self._process = context.Process(target=_serve, args=(child_connection, make, arguments))

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
        """Call the function in the process; return its result."""
        self._connection.send(arguments)
        return self._connection.recv()


def _serve(
    connection: Connection, make: Callable[..., Callable[..., Any]], arguments: tuple[Any, ...]
) -> None:
    function = make(*arguments)
    while (call := connection.recv()) is not None:
        connection.send(function(*call))
