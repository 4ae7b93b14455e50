"""`caption compare`: whether two runs differ by more than chance."""

import tempfile
from pathlib import Path

import click

from pipeline.cli.options import pairing_options
from pipeline.cli.output import printable_name


@click.command()
@click.argument("runs", nargs=2, metavar="RUN RUN")
@click.option(
    "--references",
    type=click.Path(path_type=Path),
    default=Path("artifacts/captions.parquet"),
    show_default=True,
    help="Captions of the same photos, written by people.",
)
@click.option(
    "--search", help="Which captions to use, if a run has several searches. [default: beam_20]"
)
@pairing_options
def compare(
    runs: tuple[str, str], references: Path, search: str | None, split: str | None, subset: bool
) -> None:
    """Test whether the scores of two runs differ significantly or by chance.

    A RUN is a git revision or DVC experiment of this project, a folder with
    predictions.parquet, or a caption file. Both must caption the same photos. If the
    references have several splits, the default is the test split.

    \b
    Examples:
      caption compare HEAD artifacts
      caption compare main cogged-burr --search greedy
      caption compare old.json new.json --references references.json
    """  # noqa: D301  (click wants a real backspace)
    from pipeline.comparison.run_captions import DEFAULT_SEARCH  # noqa: PLC0415  (imports NumPy)
    from pipeline.comparison.run_comparison import (  # noqa: PLC0415  (imports NumPy)
        compare_runs,
        difference_lines,
    )
    from pipeline.comparison.run_software import software_differences  # noqa: PLC0415

    pairing, differences = compare_runs(runs, references, split, search, subset=subset)
    with tempfile.TemporaryDirectory(prefix="caption-") as scratch:
        software = software_differences(runs, Path(scratch))
    for note in [*pairing.notes, *software]:
        click.echo(f"note: {note}", err=True)
    chosen = search or DEFAULT_SEARCH
    click.echo(f"{len(pairing.image_ids)} photos; {chosen}, where a run has several searches")
    click.echo("\n".join(difference_lines([printable_name(run) for run in runs], differences)))
