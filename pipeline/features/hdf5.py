"""Opening HDF5 files that come from strangers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from pipeline.errors import InputError

# What h5py raises when it follows a damaged file. `RuntimeError` covers groups too deep to walk.
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError)


@contextmanager
def open_self_contained(path: Path, mend: str) -> Iterator[Any]:
    """Open an HDF5 file for reading, after checking that it reads no other file.

    A link, an external or a virtual dataset would make a reader of this file read
    another one, or zeros where that is missing.

    Yields:
        The `h5py.File`.

    Raises:
        InputError: the file is absent, damaged or not self-contained; ends in `mend`.
    """
    try:
        file = h5py.File(path, "r")
    except FileNotFoundError:
        raise InputError(f"{path} is not there: {mend}") from None
    except OSError as error:
        raise InputError(f"{path} is no readable HDF5 file ({one_line(error)}): {mend}") from None
    with file:
        try:
            foreign = next(_foreign(file, set()), None)
        except DAMAGE as error:
            raise InputError(f"{path} is damaged ({one_line(error)}): {mend}") from None
        if foreign:
            raise InputError(f"{path}: {' '.join(foreign)}: {mend}")
        yield file


def one_line(error: Exception) -> str:
    """Return what HDF5 says, which can have line breaks, as one line."""
    return " ".join(str(error).split())


def arrays(group: Any) -> Iterator[Any]:
    """Yield every dataset below `group`, in the order of names."""
    for name in group:
        item = group[name]
        if isinstance(item, h5py.Group):
            yield from arrays(item)
        else:
            yield item


def _foreign(group: Any, seen: set[int]) -> Iterator[tuple[str, str]]:
    """Yield the name of each part that is no plain part of this file, and why not.

    Args:
        group: the group to walk.
        seen: addresses of groups on which the walk has been: one that has two names, or
            that holds a group above it, would be walked for ever.
    """
    seen.add(h5py.h5o.get_info(group.id).addr)
    for name in group:
        full_name = f"{group.name.rstrip('/')}/{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            yield full_name, "is a link, which this file may not have"
        elif isinstance(group[name], h5py.Group):
            if h5py.h5o.get_info(group[name].id).addr in seen:
                yield full_name, "is a second name of a group"
            else:
                yield from _foreign(group[name], seen)
        elif isinstance(group[name], h5py.Dataset) and (
            group[name].external or group[name].is_virtual
        ):
            yield full_name, "takes its data from another file"
