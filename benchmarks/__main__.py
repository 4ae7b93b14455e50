"""`make bench`: runs the benchmarks, in interleaved rounds, and prints one table of results.

Needs the artefacts of a finished `dvc repro` with Xception, for its encoder and model.
"""

from collections.abc import Callable
from pathlib import Path

import click

from benchmarks import (
    cold,
    encoding,
    epoch,
    increments,
    memory,
    noop,
    probe,
    reading,
    scoring,
    search,
    streaming,
    training,
    truth,
)
from benchmarks.harness import Row

_BENCHMARKS: dict[str, Callable[[Path], list[Row]]] = {
    "encoding": encoding.run,
    "cold": cold.run,
    "increments": increments.run,
    "memory": memory.run,
    "reading": reading.run,
    "noop": noop.run,
    "scoring": scoring.run,
    "training": training.run,
    "epoch": epoch.run,
    "search": search.run,
    "streaming": streaming.run,
    "truth": truth.run,
    "probe": probe.run,
}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(_BENCHMARKS)))
@click.option("--artifacts", type=click.Path(path_type=Path), default=Path("artifacts"))
def main(names: tuple[str, ...], artifacts: Path) -> None:
    """Run the benchmarks NAMES; without NAMES, run all of them."""
    rows: list[Row] = []
    for name in names or _BENCHMARKS:
        click.echo(f"{name}:")
        rows += _BENCHMARKS[name](artifacts)
    widths = [max(len(cell) for cell in column) for column in zip(*map(_cells, rows), strict=True)]
    click.echo()
    for row in rows:
        line = "  ".join(cell.ljust(w) for cell, w in zip(_cells(row), widths, strict=True))
        click.echo(line.rstrip())


def _cells(row: Row) -> tuple[str, str, str]:
    return row.name, row.result, f"(target: {row.target})" if row.target else ""


if __name__ == "__main__":
    main()
