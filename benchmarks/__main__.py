"""`make bench`: every row measured side by side, in rounds, and one table at the end.

Needs the artefacts of a finished `dvc repro` with Xception, for its encoder and model.
"""

from collections.abc import Callable
from pathlib import Path

import click

from benchmarks import (
    cold,
    encoding,
    increments,
    memory,
    noop,
    probe,
    reading,
    scoring,
    streaming,
    training,
    truth,
)
from benchmarks.harness import Row

_BENCHMARKS: dict[str, Callable[[Path], list[Row]]] = {
    "encoding": encoding.rows,
    "cold": cold.rows,
    "increments": increments.rows,
    "memory": memory.rows,
    "reading": reading.rows,
    "noop": noop.rows,
    "scoring": scoring.rows,
    "training": training.rows,
    "streaming": streaming.rows,
    "truth": truth.rows,
    "probe": probe.rows,
}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(_BENCHMARKS)))
@click.option("--artifacts", type=click.Path(path_type=Path), default=Path("artifacts"))
def main(names: tuple[str, ...], artifacts: Path) -> None:
    """Run the benchmarks NAMES, all of them by default."""
    rows: list[Row] = []
    for name in names or _BENCHMARKS:
        click.echo(f"{name}:")
        rows += _BENCHMARKS[name](artifacts)
    widths = [max(len(text) for text in column) for column in zip(*map(_texts, rows), strict=True)]
    click.echo()
    for row in rows:
        line = "  ".join(t.ljust(w) for t, w in zip(_texts(row), widths, strict=True))
        click.echo(line.rstrip())


def _texts(row: Row) -> tuple[str, str, str]:
    return row.what, row.found, f"(to reach: {row.goal})" if row.goal else ""


if __name__ == "__main__":
    main()
