"""`caption status`: which stages would run, and how many photos are already encoded."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.output import printable_name
from pipeline.errors import InputError, one_line

if TYPE_CHECKING:
    from pipeline.cli.dvc_status import StageStatus

_MAX_LISTED = 4  # reasons of a stage, or failed photos


@click.command(short_help="Show what `dvc repro` would run, and why.")
def status() -> None:
    """Show which stages `dvc repro` would run and why, and how many photos are encoded.

    New photos are those that the CNN has not seen yet; failed ones cannot be encoded.
    Reads every photo, and runs nothing.

    \b
    Examples:
      caption status
    """  # noqa: D301  (click wants a real backspace)
    from pipeline.cli.dvc_status import photo_status, stage_statuses  # noqa: PLC0415  (imports NumPy)
    from pipeline.params import load_params  # noqa: PLC0415  (imports pydantic)

    params = load_params()
    stages = stage_statuses()
    width = max(9, *(len(stage.name) for stage in stages)) + 1  # 9: the longest of our own
    for stage in stages:
        click.echo(one_line(f"{stage.name:{width}}{_stage_line(stage)}"))
    click.echo()
    try:
        photos = photo_status(params, Path("artifacts"))
    except InputError as error:
        click.echo(f"photos    unknown: {error}")
        return
    click.echo(
        f"photos    {photos.computed} computed, {photos.new} new, {len(photos.failed)} failed"
    )
    for image_id, reason in list(photos.failed.items())[:_MAX_LISTED]:
        click.echo(f"          {printable_name(image_id)}: {one_line(reason)}")
    if len(photos.failed) > _MAX_LISTED:
        click.echo(f"          and {len(photos.failed) - _MAX_LISTED} more")


def _stage_line(stage: "StageStatus") -> str:
    if stage.reasons:
        listed = "; ".join(stage.reasons[:_MAX_LISTED])
        n_more = len(stage.reasons) - _MAX_LISTED
        return f"would run: {listed}" + (f"; and {n_more} more" if n_more > 0 else "")
    if stage.upstream:
        return f"would run if the outputs of {' or '.join(stage.upstream)} change"
    return "up to date"
