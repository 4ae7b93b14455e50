"""Files: atomic writes, locks, JSON, digests and fingerprints."""

import hashlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.errors import InputError

if sys.platform != "win32":
    import fcntl


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path next to `target`; on success it replaces `target` durably.

    The file is flushed to disk before the rename and the folder after it, so a reader sees
    the old file or the new one, never a partial one, even after a power failure. On an
    exception the temporary file is removed and `target` is unchanged.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # The temporary name keeps the suffixes, because some writers choose their format by them.
    # It has no process id, because containers that share a folder may have equal ones.
    temporary = target.with_name(f".tmp-{secrets.token_hex(4)}-{target.name}")
    with writing_in(target.parent):
        try:
            yield temporary
            _fsync(temporary)
            temporary.replace(target)
            _fsync(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


_cleaned: set[Path] = set()  # folders in which this process looked for files of killed writers


@contextmanager
def writing_in(folder: Path) -> Iterator[None]:
    """Protect temporary files in `folder`; first remove those that killed writers left there.

    A writer holds a shared lock on the folder itself, which the system releases when the writer
    dies. With an exclusive lock there is no other writer, and all temporary files are left over.
    Where a file system has no such locks, nothing is removed.
    """
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            if folder not in _cleaned:
                _cleaned.add(folder)
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
) -> Iterator[None]:
    """Hold the lock of a folder while the body runs.

    It is needed because killing `dvc` does not stop the stage that it started.

    Args:
        folder: the folder; created if missing.
        task: what the holder does there; named in the error of a second writer.
        lock_name: the lock file in the folder; it is not removed.
        alternative: second half of the fix if the folder cannot be written to.

    Raises:
        InputError: another process holds the lock, or the folder cannot be written to.
    """
    lock = FileLock(folder / lock_name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"another {task} is writing to {folder}: wait until it ends, or end it"
        ) from None
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written to ({error.strerror}): make it writable{alternative}"
        ) from None
    try:
        yield
    finally:
        lock.release()


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
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is not there: {fix}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}): {fix}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} is not a JSON object: {fix}")
    return value


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
