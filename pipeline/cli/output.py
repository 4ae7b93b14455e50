"""How commands print file names."""

import click

from pipeline.errors import one_line


def on_one_line(name: str) -> str:
    """Return a file name as one printable line, whatever characters it contains."""
    return one_line(click.format_filename(name))
