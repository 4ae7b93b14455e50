"""What `caption image` is asked to caption: files, folders, and standard input."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.cli.output import on_one_line
from pipeline.datasets.photo_folders import list_photos


@dataclass(frozen=True)
class Photo:
    """A photo asked for: a file, or bytes from standard input."""

    name: str
    path: Path | None = None
    data: bytes = b""


def expand(arguments: Sequence[str]) -> Iterator[Photo | str]:
    """Yield every photo that the arguments name, or a line saying why one names none."""
    for argument in arguments:
        path = Path(argument)
        if argument == "-":
            yield from _standard_input()
        elif os.path.isdir(argument):  # noqa: PTH112  (never raises; "" is no folder)
            yield from _folder(path)
        else:
            yield Photo(argument, path)


def _folder(folder: Path) -> Iterator[Photo | str]:
    try:
        inside = sorted(path for path in list_photos(folder).values() if not path.is_dir())
    except OSError as error:
        yield f"{on_one_line(str(folder))}: cannot be listed: {error.strerror}"
        return
    yield from (Photo(str(path), path) for path in inside)
    if not inside:
        yield f"{on_one_line(str(folder))}: no .jpg, .png or .webp photo in this folder"


def _standard_input() -> Iterator[Photo | str]:
    from pipeline.features.photos import MAX_BYTES, SIGNATURE  # noqa: PLC0415  (imports NumPy)

    # It may be closed.
    data = sys.stdin.buffer.read(MAX_BYTES + 1) if sys.stdin else b""
    if len(data) > MAX_BYTES:
        yield f"-: more than {MAX_BYTES} bytes, more than any photo has"
        return
    if SIGNATURE.match(data):
        yield Photo("-", data=data)
        return
    # Names of files are bytes that need not be UTF-8; no name has a NUL in it.
    lines = [] if b"\0" in data else data.replace(b"\r\n", b"\n").split(b"\n")
    names = [os.fsdecode(line) for line in lines if line.strip()]
    if not names:
        yield "-: standard input is neither a photo nor a list of files"
    yield from (Photo(name, Path(name)) for name in names)
