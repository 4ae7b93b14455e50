"""`caption score` and `caption compare`: captions against people's, runs against each other."""

import json
from pathlib import Path

import click

from pipeline.commands.names import on_one_line
from pipeline.commands.options import all_of

# Which captions are scored.
_scored_against = all_of(
    click.option("--split", help="Of the references, where the file has several."),
    click.option("--subset", is_flag=True, help="Leave out photos that a file lacks."),
)


@click.command()
@click.argument("candidates", type=click.Path(path_type=Path))
@click.argument("references", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object, x100.")
@click.option("--search", help="Of the candidates, where the file has several.")
@_scored_against
def score(
    candidates: Path,
    references: Path,
    as_json: bool,
    search: str | None,
    split: str | None,
    subset: bool,
) -> None:
    """Score the captions of the file CANDIDATES against those of REFERENCES.

    As coco-caption does, without Java. Either file may be a JSON object of ids to
    captions, COCO results or annotations, JSON Lines, CSV or Parquet.

    \b
    Examples:
      caption score candidates.json references.json
      caption score --json results.json captions_val2014.json
      caption score --search beam_20 --split test predictions.parquet captions.parquet
    """  # noqa: D301  (click wants a real backspace)
    from pipeline.scorecard import score_files  # noqa: PLC0415  (imports NumPy)

    card = score_files(candidates, references, split, search, subset=subset)
    for note in card.pairing.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(json.dumps(card.corpus) if as_json else "\n".join(card.lines()))


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
@_scored_against
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
    from pipeline.scorecard import USUAL, compare_runs, difference_lines  # noqa: PLC0415

    pairing, found = compare_runs(runs, references, split, search, subset=subset)
    for note in pairing.notes:
        click.echo(f"note: {note}", err=True)
    searched = search or USUAL["search"]
    click.echo(f"{len(pairing.image_ids)} photos; {searched}, where a run has several searches")
    click.echo("\n".join(difference_lines([on_one_line(run) for run in runs], found)))
