"""The standard streams: neither a closed one nor an unknown character stops a process."""

import io
import os
import sys
from pathlib import Path
from typing import TextIO


def prepare_streams() -> None:
    """Make the standard streams safe to write to; called once, when a process starts.

    A closed stream discards what is written to it. Its descriptor is taken, so that no file
    opened later gets the number to which libraries in C++ write their messages. A character
    that a stream's encoding lacks is written as an escape.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    if sys.stdout is None:
        sys.stdout = _open_null()
    if sys.stderr is None:
        sys.stderr = _open_null()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # notebooks have streams of their own
            stream.reconfigure(errors="backslashreplace")


def discard_output() -> None:
    """Discard what is written to standard output from now on: its reader has left.

    Otherwise Python tries to write it once more at exit, and complains.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _open_null() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")
