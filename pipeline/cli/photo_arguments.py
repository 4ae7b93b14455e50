"""The PHOTOS arguments of `caption image`: files, folders, and standard input."""

import os
import re
import shlex
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.cli.output import printable_name
from pipeline.datasets.photo_folders import list_folder
from pipeline.errors import one_line
from pipeline.image_types import SIGNATURE_LENGTH, FileType, identify

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_MAX_EXAMPLES = 3


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
class Notice:
    """A file or folder that is not captioned, or a group of a folder's files.

    Attributes:
        name: of the file or folder.
        reason: a phrase.
        is_failure: whether a caption was asked for; no one expects one for a text file.
    """

    name: str
    reason: str
    is_failure: bool = True

    @property
    def line(self) -> str:
        """The line that reports it."""
        return f"{printable_name(self.name)}: {one_line(self.reason)}"


def expand_photo_arguments(arguments: Sequence[str]) -> Iterator[Photo | Notice]:
    """Yield the photos of each argument, and notices of files that are not captioned."""
    for argument in arguments:
        if argument == "-":
            yield from _read_standard_input()
        elif os.path.isdir(argument):  # noqa: PTH112  (never raises; "" is not a folder)
            yield from _list_folder(Path(argument))
        else:
            yield _file(argument)


def _file(name: str) -> Photo | Notice:
    if _URL.match(name) and not os.path.exists(name):  # noqa: PTH110  (never raises)
        command = f"curl -L -o photo.jpg {shlex.quote(name)}"
        return Notice(
            name, f"only files are read: download the photo with `{command}` and caption photo.jpg"
        )
    return Photo(name, Path(name))


def _list_folder(folder: Path) -> Iterator[Photo | Notice]:
    try:
        contents = list_folder(folder)
    except OSError as error:
        yield Notice(str(folder), f"cannot be listed: {error.strerror}")
        return
    paths = sorted(path for path in contents.photos.values() if not path.is_dir())
    yield from (Photo(str(path), path) for path in paths)
    if not paths:
        yield Notice(str(folder), "no JPEG, PNG or WebP photo in this folder")
    names = defaultdict(list)
    for name, file_type in contents.other_files.items():
        names[file_type].append(name)
    for file_type, examples in names.items():
        yield _not_captioned(folder, file_type, examples)


def _not_captioned(folder: Path, file_type: FileType, names: Sequence[str]) -> Notice:
    """Describe the files of one type in a folder, with the first names."""
    shown = ", ".join(map(printable_name, names[:_MAX_EXAMPLES]))
    more = len(names) - _MAX_EXAMPLES
    examples = f"({shown} and {more} more)" if more > 0 else f"({shown})"
    verb = "is" if len(names) == 1 else "are"
    fix = f": {file_type.fix}" if file_type.is_picture else ""
    reason = f"{file_type.count(len(names))} {verb} not captioned {examples}{fix}"
    return Notice(str(folder), reason, is_failure=file_type.is_picture)


def _read_standard_input() -> Iterator[Photo | Notice]:
    from pipeline.features.decoding.photos import MAX_BYTES  # noqa: PLC0415  (imports NumPy)

    # Standard input may be closed.
    data = sys.stdin.buffer.read(MAX_BYTES + 1) if sys.stdin else b""
    if len(data) > MAX_BYTES:
        yield Notice("-", f"more than {MAX_BYTES} bytes, more than any photo has")
        return
    file_type = identify(data[:SIGNATURE_LENGTH])
    if file_type.is_decodable:
        yield Photo("-", data=data)
        return
    if data and file_type.is_picture:
        yield Notice("-", file_type.reason)
        return
    # File names are bytes, not necessarily UTF-8; none contains a NUL.
    lines = [] if b"\0" in data else data.replace(b"\r\n", b"\n").split(b"\n")
    names = [os.fsdecode(line) for line in lines if line.strip()]
    if not names:
        yield Notice("-", "standard input is neither a photo nor a list of files")
    yield from map(_file, names)
