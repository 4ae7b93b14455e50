"""`caption compare`: whether two runs differ by more than chance."""

import tempfile
from pathlib import Path

import click

from pipeline.cli.options import pairing_options
from pipeline.cli.output import printable_name
from pipeline.errors import InputError, one_line


@click.command(short_help="Tell the difference of two runs from chance.")
@click.argument("runs", nargs=2, metavar="RUN RUN")
@click.option(
    "--references",
    type=click.Path(path_type=Path),
    default=Path("artifacts/captions.parquet"),
    show_default=True,
    help="File with people's captions of the same photos.",
)
@click.option(
    "--search", help="Which captions to use, if a run has several searches. [default: beam_40]"
)
@click.option(
    "--html",
    "page",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write both runs' captions of every photo to this HTML file.",
)
@pairing_options
def compare(
    runs: tuple[str, str],
    references: Path,
    search: str | None,
    page: Path | None,
    split: str | None,
    subset: bool,
) -> None:
    """Tell whether the scores of two runs differ by more than chance.

    A RUN is a DVC experiment or git revision of this project, a folder with
    predictions.parquet, or a caption file. Both must caption the same photos. If the
    references have several splits, the default is the test split.

    Prints for each score the difference, its 95 % interval over resampled photos, and the
    p-value from the same samples. Fewer than 30 photos show scores only.

    \b
    Examples:
      caption compare first artifacts
      caption compare main cogged-burr --search greedy
      caption compare first artifacts --html comparison.html
      caption compare old.json new.json --references references.json
    """  # noqa: D301  (click wants a real backspace)
    from pipeline.comparison.run_captions import DEFAULT_SEARCH  # noqa: PLC0415  (imports NumPy)
    from pipeline.comparison.run_comparison import (  # noqa: PLC0415  (imports NumPy)
        compare_runs,
        difference_lines,
    )
    from pipeline.comparison.run_software import software_differences  # noqa: PLC0415

    if not references.exists():
        raise InputError(
            f"{references.absolute()} is not there: run this in the project's folder, or name a "
            "file with --references"
        )
    pairing, differences = compare_runs(runs, references, split, search, subset=subset)
    with tempfile.TemporaryDirectory(prefix="caption-") as scratch:
        software = software_differences(runs, Path(scratch))
    for note in [*pairing.notes, *software]:
        click.echo(one_line(f"note: {note}"), err=True)
    chosen = search or DEFAULT_SEARCH
    click.echo(
        f"{len(pairing.image_ids)} photos; {one_line(chosen)}, where a run has several searches"
    )
    names = [printable_name(run) for run in runs]
    click.echo("\n".join(difference_lines(names, differences, len(pairing.image_ids))))
    if page is not None:
        from pipeline.reporting.comparison_page import (  # noqa: PLC0415  (imports NumPy)
            ComparedRuns,
            read_image_paths,
            write_comparison_page,
        )

        photos = pairing.image_ids, pairing.candidates, pairing.references, pairing.notes
        compared = ComparedRuns(runs, *photos, differences)
        write_comparison_page(page, compared, read_image_paths(references))
        click.echo(f"page: {printable_name(str(page))}")
