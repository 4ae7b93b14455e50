"""`caption status`: what would rerun, and how far the CNN has come."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.output import on_one_line
from pipeline.errors import InputError

if TYPE_CHECKING:
    from pipeline.cli.dvc_status import StageStatus

_SHOWN = 4  # reasons, or failed photos, of many


@click.command()
def status() -> None:
    """Say what `dvc repro` would run and why, and how many photos are computed.

    \b
    Examples:
      caption status
    """  # noqa: D301  (click wants a real backspace)
    from pipeline.cli.dvc_status import photo_status, stage_statuses  # noqa: PLC0415
    from pipeline.params import load_params  # noqa: PLC0415  (imports pydantic)

    params = load_params()
    for stage in stage_statuses():
        click.echo(f"{stage.name:10}{_stage_line(stage)}")
    click.echo()
    try:
        photos = photo_status(params, Path("artifacts"))
    except InputError as error:
        click.echo(f"photos    unknown: {error}")
        return
    click.echo(
        f"photos    {photos.computed} computed, {photos.new} new, {len(photos.failed)} unreadable"
    )
    for image_id, reason in list(photos.failed.items())[:_SHOWN]:
        click.echo(f"          {on_one_line(image_id)}: {reason}")
    if len(photos.failed) > _SHOWN:
        click.echo(f"          and {len(photos.failed) - _SHOWN} more")


def _stage_line(stage: "StageStatus") -> str:
    if stage.reasons:
        shown = "; ".join(stage.reasons[:_SHOWN])
        more = len(stage.reasons) - _SHOWN
        return f"would run: {shown}" + (f"; and {more} more" if more > 0 else "")
    if stage.after:
        return f"would run if the outputs of {' or '.join(stage.after)} change"
    return "up to date"
