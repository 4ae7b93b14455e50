"""`caption score`: scores a file of captions against references."""

import json
from pathlib import Path

import click

from pipeline.cli.options import pairing_options
from pipeline.errors import one_line


@click.command(short_help="Score a file of captions against references.")
@click.argument("candidates", type=click.Path(path_type=Path))
@click.argument("references", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; scores are x100.")
@click.option("--search", help="Which candidates to use, if the file has several searches.")
@pairing_options
def score(
    candidates: Path,
    references: Path,
    as_json: bool,
    search: str | None,
    split: str | None,
    subset: bool,
) -> None:
    """Score the captions in the file CANDIDATES against those in the file REFERENCES.

    The scores are those of coco-caption, without its Java. Each file may be a JSON object
    of ids to captions, COCO results or annotations, Karpathy's dataset_coco.json, JSON
    Lines, CSV or Parquet. Photos may be named with or without folder and suffix, or by
    COCO's numbers. Fewer than 30 photos get scores without intervals.

    \b
    Examples:
      caption score candidates.json references.json
      caption score --json results.json captions_val2014.json
      caption score --split test results.json dataset_coco.json
      caption image --json photos > mine.jsonl; caption score mine.jsonl refs.csv
    """  # noqa: D301  (click wants a real backspace)
    from pipeline.comparison.scorecard import score_files  # noqa: PLC0415  (imports NumPy)

    card = score_files(candidates, references, split, search, subset=subset)
    for note in card.pairing.notes:
        click.echo(one_line(f"note: {note}"), err=True)
    click.echo(json.dumps(card.corpus) if as_json else "\n".join(card.lines()))
