"""The PHOTOS arguments of `caption image`: files, folders, and standard input."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.cli.output import printable_name
from pipeline.datasets.photo_folders import list_photos
from pipeline.errors import one_line


@dataclass(frozen=True)
class Photo:
    """A photo to caption.

    Attributes:
        name: as it is printed.
        path: the file; None for a photo from standard input.
        data: the bytes of a photo from standard input.
    """

    name: str
    path: Path | None = None
    data: bytes = b""


@dataclass(frozen=True)
class Failure:
    """A photo, or an argument without photos, that cannot be captioned.

    Attributes:
        name: of the file or folder.
        reason: a phrase.
    """

    name: str
    reason: str

    @property
    def line(self) -> str:
        """The line that reports it."""
        return f"{printable_name(self.name)}: {one_line(self.reason)}"


def expand_photo_arguments(arguments: Sequence[str]) -> Iterator[Photo | Failure]:
    """Yield the photos of each argument, or a failure if it has none."""
    for argument in arguments:
        path = Path(argument)
        if argument == "-":
            yield from _read_standard_input()
        elif os.path.isdir(argument):  # noqa: PTH112  (never raises; "" is not a folder)
            yield from _list_folder(path)
        else:
            yield Photo(argument, path)


def _list_folder(folder: Path) -> Iterator[Photo | Failure]:
    try:
        paths = sorted(path for path in list_photos(folder).values() if not path.is_dir())
    except OSError as error:
        yield Failure(str(folder), f"cannot be listed: {error.strerror}")
        return
    yield from (Photo(str(path), path) for path in paths)
    if not paths:
        yield Failure(str(folder), "no .jpg, .png or .webp photo in this folder")


def _read_standard_input() -> Iterator[Photo | Failure]:
    from pipeline.features.photos import MAX_BYTES, SIGNATURE  # noqa: PLC0415  (imports NumPy)

    # Standard input may be closed.
    data = sys.stdin.buffer.read(MAX_BYTES + 1) if sys.stdin else b""
    if len(data) > MAX_BYTES:
        yield Failure("-", f"more than {MAX_BYTES} bytes, more than any photo has")
        return
    if SIGNATURE.match(data):
        yield Photo("-", data=data)
        return
    # File names are bytes, not necessarily UTF-8; none contains a NUL.
    lines = [] if b"\0" in data else data.replace(b"\r\n", b"\n").split(b"\n")
    names = [os.fsdecode(line) for line in lines if line.strip()]
    if not names:
        yield Failure("-", "standard input is neither a photo nor a list of files")
    yield from (Photo(name, Path(name)) for name in names)
