"""Atomic writes, digests and fingerprints: what every room needs from the file system."""

import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.errors import InputError


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success it replaces `target` durably.

    The file is flushed to disk before the rename and the folder after it, so a reader
    sees the old file or the new one, never a part, even after a power cut. On an
    exception the temporary file is removed and `target` is left as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # The temporary name keeps the suffixes: some writers choose their format by them. It is
    # no process number: in containers that share a folder, all may have the same one.
    temporary = target.with_name(f".tmp-{secrets.token_hex(4)}-{target.name}")
    try:
        yield temporary
        _fsync(temporary)
        temporary.replace(target)
        _fsync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def reserve(path: Path, size: int) -> None:
    """Make sure that a new file of `size` bytes fits on the disk, which may be full.

    For writers that do not survive a full disk; the file is left empty.

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


def remove_leftovers(folder: Path, name: str) -> None:
    """Remove what killed writers of `name`, which may be a pattern, left in `folder`.

    For whoever alone may write there: another's temporary file would be removed too.
    """
    for leftover in folder.glob(f".tmp-*-{name}"):
        leftover.unlink(missing_ok=True)


@contextmanager
def sole_writer(
    folder: Path,
    doing: str,
    lock_name: str = "lock",
    elsewhere: str = ", or set runtime.cache in params.yaml to another folder",
) -> Iterator[None]:
    """Hold a folder's lock: killing `dvc` leaves the stage that it started running.

    Args:
        folder: the folder; made if need be.
        doing: what the holder does there.
        lock_name: the lock's file in the folder; it stays there.
        elsewhere: what else a user can do where the folder cannot be written to.

    Raises:
        InputError: another process, named by what it is `doing`, holds it, or the folder
            cannot be written to.
    """
    lock = FileLock(folder / lock_name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"another {doing} is writing to {folder}: wait until it ends, or end it"
        ) from None
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written to ({error.strerror}): make it writable{elsewhere}"
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
    """Write `text` to `target` atomically, as UTF-8 with the line ends it has."""
    write_bytes(target, text.encode("utf-8"))


def write_json(target: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys: equal values, equal bytes."""
    write_text(target, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path, fix: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises `InputError`, ending in `fix`, if the file is absent or is no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} is not there: {fix}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}): {fix}") from None
    if not isinstance(value, dict):
        raise InputError(f"{path} holds no JSON object: {fix}")
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
    folder = path.is_dir()
    if os.name == "nt" and folder:  # Windows flushes folders by itself
        return
    # Windows flushes only what may be written to, and no system lets a folder be.
    descriptor = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
