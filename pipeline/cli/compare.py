"""`caption compare`: whether two runs differ by more than chance."""

from pathlib import Path

import click

from pipeline.cli.output import on_one_line
from pipeline.cli.score import scored_against


@click.command()
@click.argument("runs", nargs=2, metavar="RUN RUN")
@click.option(
    "--references",
    type=click.Path(path_type=Path),
    default=Path("artifacts/captions.parquet"),
    show_default=True,
    help="Captions by people of the same photos.",
)
@click.option("--search", help="Of the runs, where they have several. [default: beam_20]")
@scored_against
def compare(
    runs: tuple[str, str], references: Path, search: str | None, split: str | None, subset: bool
) -> None:
    """Say whether two runs' captions of the same photos score differently, or by chance.

    A RUN is a git revision or an experiment of this project, a folder with
    predictions.parquet, or a file of captions. Photos are those of the test split, where
    the references have splits and no other is asked for.

    \b
    Examples:
      caption compare HEAD artifacts
      caption compare main cogged-burr --search greedy
      caption compare ours.json theirs.json --references references.json
    """  # noqa: D301  (click wants a real backspace)
    from pipeline.comparison.scorecard import DEFAULTS, compare_runs, difference_lines  # noqa: PLC0415

    pairing, found = compare_runs(runs, references, split, search, subset=subset)
    for note in pairing.notes:
        click.echo(f"note: {note}", err=True)
    searched = search or DEFAULTS["search"]
    click.echo(f"{len(pairing.image_ids)} photos; {searched}, where a run has several searches")
    click.echo("\n".join(difference_lines([on_one_line(run) for run in runs], found)))
