"""How commands print file names."""

import click

from pipeline.errors import one_line


def printable_name(name: str) -> str:
    """Return a file name as one printable line, whatever characters it contains."""
    return one_line(click.format_filename(name))
