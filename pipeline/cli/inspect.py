"""`caption inspect`: checks an artefact and describes it."""

from pathlib import Path

import click

from pipeline.cli.output import printable_name
from pipeline.errors import one_line


@click.command(short_help="Check a file that a run wrote, and describe it.")
@click.argument("file", type=click.Path(path_type=Path))
def inspect(file: Path) -> None:
    """Check FILE, an artefact of a run, and describe it.

    FILE may be features.h5, of which every vector is compared with its digest, and which
    lists the photos that failed; detector.h5; neighbours.h5; captions.parquet;
    vocabulary.json; or the folder model. The exit code is 1 if anything is wrong.

    \b
    Examples:
      caption inspect artifacts/features.h5
      caption inspect artifacts/model
    """  # noqa: D301  (click wants a real backspace)
    from pipeline.cli.descriptions import describe  # noqa: PLC0415  (imports NumPy, h5py)

    description = describe(file)
    click.echo(f"{printable_name(str(file))}: {description.verdict}")
    for name, value in description.properties.items():
        click.echo(one_line(f"  {name:22}{value}"))
    for image_id, reason in description.failed.items():
        click.echo(f"  failed: {printable_name(image_id)}: {one_line(reason)}")
