"""HDF5 files: opening untrusted ones safely, and writing them to disks that may be full."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from pipeline.errors import InputError, collapsed_message

# The errors that h5py raises on a damaged file. `RuntimeError` covers groups that are nested too
# deeply.
CORRUPTION_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError)


@contextmanager
def open_self_contained(path: Path, fix: str) -> Iterator[Any]:
    """Open an HDF5 file for reading, after checking that it refers to no other file.

    Links, external datasets and virtual datasets would make HDF5 read other files, or return
    zeros if those are missing.

    Args:
        path: the file.
        fix: what the user can do about a bad file; the end of error messages.

    Yields:
        The `h5py.File`.

    Raises:
        InputError: the file is absent, damaged or not self-contained.
    """
    try:
        file = h5py.File(path, "r")
    except FileNotFoundError:
        raise InputError(f"{path} is not there: {fix}") from None
    except OSError as error:
        raise InputError(
            f"{path} is not a readable HDF5 file ({collapsed_message(error)}): {fix}"
        ) from None
    with file:
        try:
            problem = next(_find_problems(file, set()), None)
        except CORRUPTION_ERRORS as error:
            raise InputError(f"{path} is damaged ({collapsed_message(error)}): {fix}") from None
        if problem:
            raise InputError(f"{path}: {problem}: {fix}")
        yield file


class DeferredErrorFile(io.FileIO):
    """A file for HDF5 to write to, which keeps write errors from the HDF5 library.

    The library cannot handle a full disk: it retries failed writes when the file is closed and
    when the process exits, and then crashes. So writes always seem to succeed; after the first
    error nothing more is written, and `check` raises it.
    """

    _failure: OSError | KeyboardInterrupt | None = None

    def check(self) -> None:
        """Raise the first `OSError` (or `KeyboardInterrupt`) of a write, if there was one."""
        if self._failure is not None:
            raise self._failure

    def write(self, data: Any) -> int:
        """Write all of `data`, unless an earlier write failed."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while self._failure is None and rest:
                rest = rest[super().write(rest) :]
        except (OSError, KeyboardInterrupt) as error:
            self._failure = error
        return size

    def truncate(self, size: int | None = None) -> int:
        """Set the file's size, unless an earlier write failed."""
        try:
            if self._failure is None:
                return super().truncate(size)
        except (OSError, KeyboardInterrupt) as error:
            self._failure = error
        return size or 0


@contextmanager
def create_file(path: Path) -> Iterator[tuple[Any, DeferredErrorFile]]:
    """Create an HDF5 file.

    Yields:
        The `h5py.File`, and the file below it, whose `check` raises write errors early.

    Raises:
        OSError: the disk is full or failed.
    """
    with DeferredErrorFile(path, "w+") as output:
        try:
            with h5py.File(_create_low_level(output)) as file:
                yield file, output
        finally:
            # The write error is the cause of any HDF5 error about missing data: raise it instead.
            output.check()


def create_group(file: Any, name: str) -> None:
    """Create a group as h5py does, but without a timestamp."""
    creation = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    creation.set_obj_track_times(False)
    h5py.h5g.create(file.id, name.encode(), gcpl=creation)


def _create_low_level(output: DeferredErrorFile) -> Any:
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, output)
    # The first format with checksums for everything except the datasets' contents. In older
    # formats, a flipped bit can make HDF5 do anything, such as allocate all memory.
    access.set_libver_bounds(h5py.h5f.LIBVER_V18, h5py.h5f.LIBVER_V110)
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)  # so that equal contents give equal bytes
    return h5py.h5f.create(b"new", h5py.h5f.ACC_TRUNC, creation, access)


def read_attribute(file: Any, name: str) -> str:
    """Return a text attribute.

    Raises:
        KeyError: there is no attribute of that name.
        ValueError: it is not text, or of variable length: if damaged, such an attribute can
            crash the HDF5 library.
    """
    if file.attrs.get_id(name).dtype.kind != "S":
        raise ValueError(f"{name} is not a fixed-length string")
    return str(file.attrs[name], "ascii")


def check_extent(dataset: Any) -> None:
    """Refuse a damaged shape before memory is allocated for it.

    Raises:
        ValueError: the dataset would be larger than its file.
    """
    if dataset.nbytes > dataset.file.id.get_filesize():
        raise ValueError(f"{dataset.name} is larger than the file")


def iter_datasets(group: Any) -> Iterator[Any]:
    """Yield every dataset below `group`, in the order of their names."""
    for name in group:
        item = group[name]
        if isinstance(item, h5py.Group):
            yield from iter_datasets(item)
        else:
            yield item


def _find_problems(group: Any, visited: set[int]) -> Iterator[str]:
    """Yield what is wrong with each member that is not a plain dataset or group of this file.

    Args:
        group: the group to walk.
        visited: addresses of the groups visited so far. Without them, the walk would not end
            for a group that contains itself, and would take exponential time if groups have
            several names.
    """
    visited.add(h5py.h5o.get_info(group.id).addr)
    for name in group:
        full_name = f"{group.name.rstrip('/')}/{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            yield f"{full_name} is a link, which is not allowed in this file"
        elif isinstance(group[name], h5py.Group):
            if h5py.h5o.get_info(group[name].id).addr in visited:
                yield f"{full_name} is a second name of a group"
            else:
                yield from _find_problems(group[name], visited)
        elif isinstance(group[name], h5py.Dataset) and (
            group[name].external or group[name].is_virtual
        ):
            yield f"{full_name} takes its data from another file"
