"""HDF5 files: opening untrusted ones safely, and writing them to disks that may be full."""

import hashlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError, collapsed_message
from pipeline.files import atomic_path, check_regular, raise_system_error

# The errors that h5py raises on a damaged file. `RuntimeError` covers groups that are nested too
# deeply.
CORRUPTION_ERRORS = (
    *(OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError),
    *(OverflowError, IndexError),
)
_MAX_ATTRIBUTE = 1 << 16  # bytes; HDF5 stores larger ones elsewhere than in their object


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
    check_regular(path, fix)
    try:
        file = h5py.File(path, "r")
    except CORRUPTION_ERRORS as error:
        raise_system_error(error, path)
        raise InputError(
            f"{path} is not a readable HDF5 file ({collapsed_message(error)}): {fix}"
        ) from None
    with file:
        try:
            problem = next(_find_problems(file, set()), None)
        except CORRUPTION_ERRORS as error:
            raise_system_error(error, path)
            raise InputError(f"{path} is damaged ({collapsed_message(error)}): {fix}") from None
        if problem:
            raise InputError(f"{path}: {problem}: {fix}")
        yield file


@contextmanager
def open_as(path: Path, contents: str, fix: str) -> Iterator[Any]:
    """Open an HDF5 file whose contents the body reads and checks.

    Args:
        path: the file.
        contents: what it should be, as in "is not CONTENTS", if the body fails.
        fix: see `open_self_contained`.

    Yields:
        The `h5py.File`.

    Raises:
        InputError: the file is absent or damaged, or the body raised one of `CORRUPTION_ERRORS`.
    """
    with open_self_contained(path, fix) as file:
        try:
            yield file
        except CORRUPTION_ERRORS as error:
            raise_system_error(error, path)
            raise InputError(
                f"{path} is not {contents} ({collapsed_message(error)}): {fix}"
            ) from None


class DeferredErrorFile(io.FileIO):
    """A file for HDF5 to write to, which keeps write errors from the HDF5 library.

    The library cannot handle a full disk: it retries failed writes when the file is closed and
    when the process exits, and then crashes. So writes always seem to succeed; after the first
    error nothing more is written, and `check` raises it.
    """

    _failure: OSError | KeyboardInterrupt | SystemExit | None = None

    def check(self) -> None:
        """Raise the first `OSError` (or interrupt) of a write, if there was one."""
        if self._failure is not None:
            raise self._failure

    def write(self, data: Any) -> int:
        """Write all of `data`, unless an earlier write failed."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while self._failure is None and rest:
                rest = rest[super().write(rest) :]
        except (OSError, KeyboardInterrupt, SystemExit) as error:
            self._failure = error
        return size

    def truncate(self, size: int | None = None) -> int:
        """Set the file's size, unless an earlier write failed."""
        try:
            if self._failure is None:
                return super().truncate(size)
        except (OSError, KeyboardInterrupt, SystemExit) as error:
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


def write_arrays(
    path: Path,
    format_version: int,
    fingerprints: Mapping[str, str],
    arrays: Mapping[str, npt.NDArray[Any]],
) -> None:
    """Write a file of arrays with their digest; equal arguments give equal bytes.

    Args:
        path: the file to write.
        format_version: version of the format.
        fingerprints: attributes that name what the arrays were made from.
        arrays: the datasets.

    Raises:
        OSError: writing failed; `path` is left as it was.
    """
    with atomic_path(path) as temporary, create_file(temporary) as (file, output):
        file.attrs["format_version"] = format_version
        for name, fingerprint in fingerprints.items():
            file.attrs[name] = np.bytes_(fingerprint)
        file.attrs["sha256"] = np.bytes_(arrays_digest(arrays))
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
            output.check()


def arrays_digest(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """SHA-256 of arrays, which should be little-endian, with their names and shapes."""
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


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


def read_text_attribute(file: Any, name: str) -> str:
    """Return a text attribute.

    Raises:
        KeyError: there is no attribute of that name.
        ValueError: it is not one text of fixed length.
    """
    return str(_read_attribute(file, name, "S"), "ascii")


def read_integer_attribute(file: Any, name: str) -> int:
    """Return an integer attribute.

    Raises:
        KeyError: there is no attribute of that name.
        ValueError: it is not one integer.
    """
    return int(_read_attribute(file, name, "iu"))


def _read_attribute(file: Any, name: str, kinds: str) -> Any:
    """Return an attribute after checking its type.

    If damaged, an attribute of variable length makes the HDF5 library read any memory: it
    crashes or never returns. A fixed length is checked before memory is allocated for it.
    """
    attribute = file.attrs.get_id(name)
    if attribute.dtype.kind not in kinds or attribute.shape != ():
        raise ValueError(
            f"{name} is not {'an integer' if 'i' in kinds else 'a fixed-length string'}"
        )
    if attribute.get_storage_size() > _MAX_ATTRIBUTE:
        raise ValueError(f"{name} is too long")
    return file.attrs[name]


def check_dataset(dataset: Any, kinds: str) -> None:
    """Refuse a damaged dataset before it is read, and before memory is allocated for it.

    Args:
        dataset: the `h5py.Dataset`.
        kinds: the kinds of NumPy types that it may have, see `numpy.dtype.kind`.

    Raises:
        ValueError: it is of another type, which HDF5 may crash on, or larger than its file, or
            in chunks, whose filters could make it so.
        AttributeError: it is a group.
        TypeError: its type is none of NumPy's.
    """
    if dataset.dtype.kind not in kinds:
        contents = "fixed-length strings" if kinds == "S" else "numbers"
        raise ValueError(f"{dataset.name} does not hold {contents}")
    if dataset.shape is None or dataset.nbytes > dataset.file.id.get_filesize():
        raise ValueError(f"{dataset.name} is larger than the file")
    if dataset.chunks is not None:
        raise ValueError(f"{dataset.name} is in chunks")


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
        elif not isinstance(group[name], h5py.Dataset):
            yield f"{full_name} is neither a group nor a dataset"
        elif group[name].external or group[name].is_virtual:
            yield f"{full_name} takes its data from another file"
