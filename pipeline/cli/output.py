"""Names of files as commands print them."""

import click

from pipeline.errors import one_line


def on_one_line(name: str) -> str:
    """Return a file name as one line of output, whatever characters it has."""
    return one_line(click.format_filename(name))
