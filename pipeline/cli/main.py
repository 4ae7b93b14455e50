"""`caption`, the command line."""

from typing import Any

import click

from pipeline.cli.compare import compare
from pipeline.cli.image import image
from pipeline.cli.inspect import inspect
from pipeline.cli.score import score
from pipeline.cli.status import status
from pipeline.errors import InputError
from pipeline.streams import prepare_streams


class _Commands(click.Group):
    """Prints an `InputError` as one line, like click's own errors."""

    def main(self, *args: Any, **options: Any) -> Any:
        prepare_streams()
        return super().main(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="caption-pipeline")
def main() -> None:
    """Caption photos with the model that `dvc repro` trained, and score captions.

    \b
    Examples:
      caption image holiday.jpg
      caption status
      caption compare first artifacts
    """  # noqa: D301  (click wants a real backspace)


for _command in (image, inspect, status, score, compare):
    main.add_command(_command)
