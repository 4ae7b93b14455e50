"""`caption`, the command line."""

from typing import Any

import click

from pipeline.cli.compare import compare
from pipeline.cli.image import image
from pipeline.cli.inspect import inspect
from pipeline.cli.score import score
from pipeline.cli.status import status
from pipeline.errors import InputError
from pipeline.system.failures import describe, raise_on_signals
from pipeline.system.streams import prepare_streams


class _Commands(click.Group):
    """Prints an `InputError` and an error of the system as one line, like click's own errors."""

    def main(self, *args: Any, **options: Any) -> Any:
        prepare_streams()
        return super().main(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        raise_on_signals()
        try:
            return super().invoke(ctx)
        except InputError as error:
            raise click.ClickException(str(error)) from None
        except (OSError, MemoryError) as error:
            message = describe(error)
            # A closed pipe is no error: click ends the command without a word.
            if message is None or isinstance(error, BrokenPipeError):
                raise
            raise click.ClickException(message) from None
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            raise SystemExit(130) from None


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
