"""Files: atomic writes, locks, JSON, digests and fingerprints."""

import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from pipeline.errors import InputError, collapsed_message

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Record = TypeVar("_Record", bound="DataclassInstance")

# A system that does not support an operation fails with one of these.
_NOT_SUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.ENOSYS}
_NO_LOCKS = _NOT_SUPPORTED | {errno.ENOLCK}
_SYSTEM_ERRORS = {
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES, errno.EPERM, errno.EIO),
    *(errno.ESTALE, errno.ETIMEDOUT, errno.ENOLCK),
}
_SOFT = ".soft"  # suffix of a lock that consists of a file
_KINDS = {
    stat.S_ISDIR: "folder",
    stat.S_ISFIFO: "pipe",
    stat.S_ISSOCK: "socket",
    stat.S_ISCHR: "device",
    stat.S_ISBLK: "device",
}

if sys.platform != "win32":
    import fcntl


@contextmanager
def atomic_path(target: Path, *, shared: bool = False) -> Iterator[Path]:
    """Yield a temporary path next to `target`; on success it replaces `target` durably.

    The file is flushed to disk before the rename and the folder after it, so a reader sees
    the old file or the new one, never a partial one, even after a power failure. On an
    exception the temporary file is removed and `target` is unchanged. Temporary files of killed
    writers are removed by the next process that writes to the folder.

    Args:
        target: the file to write.
        shared: whether other machines may write to the folder, too. Some network file systems
            do not show them this machine's locks, so temporary files of killed writers stay.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # The temporary name keeps the suffixes, because some writers choose their format by them.
    # It has no process id, because containers that share a folder may have equal ones.
    temporary = target.with_name(f".tmp-{secrets.token_hex(4)}-{target.name}")
    with nullcontext() if shared else writing_in(target.parent):
        try:
            yield temporary
            _fsync(temporary)
            temporary.replace(target)
            # The file is in place: a folder that cannot be opened or flushed does not undo that.
            with _suppress_errors(_NOT_SUPPORTED | {errno.EACCES, errno.EPERM}):
                _fsync(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _suppress_errors(numbers: set[int]) -> Iterator[None]:
    """Suppress an `OSError` that has one of these error numbers."""
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise


_cleaned: set[Path] = set()  # folders in which this process looked for files of killed writers


@contextmanager
def writing_in(folder: Path) -> Iterator[None]:
    """Protect temporary files in `folder`; first remove those that killed writers left there.

    A writer holds a shared lock on the folder itself, which the system releases when the writer
    dies. With an exclusive lock there is no other writer, and all temporary files are left over.
    Where a file system has no such locks, nothing is removed.
    """
    if sys.platform == "win32" or not os.access(folder, os.R_OK):
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            if folder.absolute() not in _cleaned:
                _cleaned.add(folder.absolute())
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove_leftovers(folder)
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def _remove_leftovers(folder: Path) -> None:
    for leftover in folder.glob(".tmp-*"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def check_disk_space(path: Path, size: int) -> None:
    """Check that a new file of `size` bytes fits on the disk; leave an empty file.

    For writers that crash on a full disk.

    Raises:
        OSError: it does not fit.
    """
    with path.open("wb") as file:
        if not hasattr(os, "posix_fallocate"):  # macOS and Windows
            return
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
        file.truncate(0)


def remove_temporary_files(folder: Path, name: str) -> None:
    """Remove the temporary files that killed writers of `name`, or a pattern, left in `folder`.

    Only the sole writer of the folder may call it: it would remove another's file, too.
    """
    for temporary in folder.glob(f".tmp-*-{name}"):
        temporary.unlink(missing_ok=True)


@contextmanager
def sole_writer(
    folder: Path,
    task: str,
    lock_name: str = "lock",
    alternative: str = ", or set runtime.cache in params.yaml to another folder",
    *,
    wait: bool = False,
) -> Iterator[None]:
    """Hold the lock of a folder while the body runs.

    It is needed because killing `dvc` does not stop the stage that it started, and because
    experiments that run at the same time may share a cache.

    Args:
        folder: the folder; created if missing.
        task: what the holder does there; named in the error of a second writer.
        lock_name: the lock file in the folder; it is not removed.
        alternative: second half of the fix if the folder cannot be written to.
        wait: whether to wait while another process holds the lock.

    Raises:
        InputError: another process holds the lock, or the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _acquire(folder / lock_name, f"another {task} is writing to {folder}: ", wait=wait)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written to ({error.strerror}): make it writable{alternative}"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _acquire(path: Path, situation: str, *, wait: bool) -> BaseFileLock:
    """Acquire a lock of the system or, where it has none, one that consists of a file.

    Some network and cluster file systems have no locks. The file is removed on release, and
    its next owner on the same machine removes one that a killed process left.

    Raises:
        InputError: another process holds the lock; the message starts with `situation`.
        OSError: the folder cannot be written to.
    """
    lock: BaseFileLock = FileLock(path)
    try:
        _acquire_in_turn(lock, situation, wait=wait)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        lock = SoftFileLock(path.with_name(path.name + _SOFT))
        stale = f"if none runs, remove {lock.lock_file}; else "
        _acquire_in_turn(lock, situation + stale, wait=wait)
    return lock


def _acquire_in_turn(lock: BaseFileLock, situation: str, *, wait: bool) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise InputError(f"{situation}wait until it ends, or end it") from None
        print(f"{situation}waiting until it ends", file=sys.stderr, flush=True)
        lock.acquire()


def check_regular(path: Path, fix: str) -> None:
    """Refuse a folder, a pipe or a device: reading from a pipe would wait for a writer.

    Raises:
        InputError: the path is absent or no regular file; the message ends in `fix`.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise InputError(f"{path} is not there: {fix}") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise_system_error(error, path)
        raise InputError(f"{path} cannot be read ({error}): {fix}") from None
    if not stat.S_ISREG(mode):
        kind = next((name for test, name in _KINDS.items() if test(mode)), "special file")
        raise InputError(f"{path} is a {kind}, not a file: {fix}")


def raise_system_error(error: Exception, path: Path) -> None:
    """Raise again, with the name of the file, an error that says nothing about its contents.

    Computing a file again helps if it is damaged, not if it cannot be read at the moment.
    """
    if isinstance(error, OSError) and error.errno in _SYSTEM_ERRORS:
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from None


def write_bytes(target: Path, data: bytes) -> None:
    """Write `data` to `target` atomically."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def write_text(target: Path, text: str) -> None:
    """Write `text` to `target` atomically, as UTF-8 with its line ends unchanged."""
    write_bytes(target, text.encode("utf-8"))


def write_json(target: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys: equal values give equal bytes."""
    write_text(target, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path, fix: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: the file is missing or not a JSON object; the message ends in `fix`.
    """
    check_regular(path, fix)
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text)
        if "\\u" in text:  # escapes can give half a character, which no file can have
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (OSError, ValueError, RecursionError) as error:
        raise_system_error(error, path)
        reason = collapsed_message(error) or type(error).__name__
        raise InputError(f"{path} cannot be read as JSON ({reason}): {fix}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} is not a JSON object: {fix}")
    return value


def read_texts(path: Path, key: str, fix: str) -> dict[str, str]:
    """Read the texts by name that a JSON object has under `key`.

    Raises:
        InputError: see `read_json`, or there are none; the message ends in `fix`.
    """
    texts = read_json(path, fix).get(key)
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise InputError(f"{path}: {key} does not hold texts: {fix}")
    return texts


def record_from_json(kind: type[_Record], values: Any) -> _Record:
    """Make a dataclass whose fields are of plain types from the JSON object that describes it.

    It does what pydantic would, without the tenth of a second that importing pydantic takes
    each time that a photo is captioned.

    Raises:
        ValueError: `values` is not an object with exactly these fields, or a value is of
            another type, infinite or NaN.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{values!r:.40} is not an object")  # noqa: TRY004  (a malformed file)
    names = [field.name for field in fields(kind)]
    if different := set(names) ^ set(values):
        raise ValueError(f"{min(different)!r:.40} is missing or unknown")
    for field in fields(kind):
        if not _is_of_type(values[field.name], field.type):
            raise ValueError(f"{field.name} is {values[field.name]!r:.40}")
    as_tuples = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return kind(**as_tuples)


def _is_of_type(value: Any, kind: Any) -> bool:
    if get_origin(kind) is tuple:
        item_type = get_args(kind)[0]
        return type(value) is list and all(type(item) is item_type for item in value)
    if kind is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    return type(value) is (get_origin(kind) or kind)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """Return the SHA-256 of a JSON-serialisable value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _fsync(path: Path) -> None:
    is_folder = path.is_dir()
    if os.name == "nt" and is_folder:  # Windows flushes folders by itself
        return
    # Windows flushes only files that are open for writing; no system opens a folder for writing.
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
