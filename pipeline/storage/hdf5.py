"""Opening HDF5 files that come from strangers; creating them on disks that may be full."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from pipeline.errors import InputError, collapsed

# What h5py raises when it follows a damaged file. `RuntimeError` covers groups too deep to walk.
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError)


@contextmanager
def open_self_contained(path: Path, fix: str) -> Iterator[Any]:
    """Open an HDF5 file for reading, after checking that it reads no other file.

    A link, an external or a virtual dataset would make a reader of this file read
    another one, or zeros where that is missing.

    Yields:
        The `h5py.File`.

    Raises:
        InputError: the file is absent, damaged or not self-contained; ends in `fix`.
    """
    try:
        file = h5py.File(path, "r")
    except FileNotFoundError:
        raise InputError(f"{path} is not there: {fix}") from None
    except OSError as error:
        raise InputError(f"{path} is no readable HDF5 file ({collapsed(error)}): {fix}") from None
    with file:
        try:
            foreign = next(_foreign(file, set()), None)
        except DAMAGE as error:
            raise InputError(f"{path} is damaged ({collapsed(error)}): {fix}") from None
        if foreign:
            raise InputError(f"{path}: {' '.join(foreign)}: {fix}")
        yield file


class Disk(io.FileIO):
    """A new file for HDF5 to write to, on a disk that may fail.

    The HDF5 library does not survive a full disk: what it could not write it tries again
    when it closes the file and when the process ends, and there it crashes. So it is not
    told; after the first failure nothing more is written, and `check` tells.
    """

    _failure: OSError | KeyboardInterrupt | None = None

    def check(self) -> None:
        """Raise the `OSError` (or Ctrl-C) that writing met, if it met one."""
        if self._failure is not None:
            raise self._failure

    def write(self, data: Any) -> int:
        """Write all of `data`, unless a write failed before."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while self._failure is None and rest:
                rest = rest[super().write(rest) :]
        except (OSError, KeyboardInterrupt) as error:
            self._failure = error
        return size

    def truncate(self, size: int | None = None) -> int:
        """Set the file's size, unless a write failed before."""
        try:
            if self._failure is None:
                return super().truncate(size)
        except (OSError, KeyboardInterrupt) as error:
            self._failure = error
        return size or 0


@contextmanager
def create(path: Path) -> Iterator[tuple[Any, Disk]]:
    """Create an HDF5 file.

    Yields:
        The `h5py.File` and where it goes.

    Raises:
        OSError: the disk did not take it all.
    """
    with Disk(path, "w+") as disk:
        try:
            with h5py.File(_new(disk)) as file:
                yield file, disk
        finally:
            disk.check()  # the cause, also where HDF5 stumbled over what was not written


def create_group(file: Any, name: str) -> None:
    """Create a group: as h5py does, but without the time of day in it."""
    creation = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    creation.set_obj_track_times(False)
    h5py.h5g.create(file.id, name.encode(), gcpl=creation)


def _new(disk: Disk) -> Any:
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, disk)
    # The first format with checksums of all but the numbers themselves: before it, HDF5
    # follows a flipped bit wherever that leads, to all of the memory for one.
    access.set_libver_bounds(h5py.h5f.LIBVER_V18, h5py.h5f.LIBVER_V110)
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)  # equal contents, equal bytes
    return h5py.h5f.create(b"new", h5py.h5f.ACC_TRUNC, creation, access)


def read_attribute(file: Any, name: str) -> str:
    """Return a text attribute.

    Raises:
        KeyError: there is none of that name.
        ValueError: it is of variable length, as which a damaged one can crash the HDF5 library,
            or no text.
    """
    if file.attrs.get_id(name).dtype.kind != "S":
        raise ValueError(f"{name} is no string of fixed length")
    return str(file.attrs[name], "ascii")


def check_extent(dataset: Any) -> None:
    """Refuse a damaged shape before memory is taken for it.

    Raises:
        ValueError: the dataset would be larger than its file.
    """
    if dataset.nbytes > dataset.file.id.get_filesize():
        raise ValueError(f"{dataset.name} is larger than the file")


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
