"""Limits of memory, page cache included, for processes of benchmarks."""

import os
from pathlib import Path

_GROUP = "caption-benchmark-"


def limit_memory(limit: int | None) -> None:
    """Put this process under a limit of so many bytes, where the system lets it."""
    parent = _groups()
    if limit is None or parent is None:
        return
    group = parent / f"{_GROUP}{os.getpid()}"
    group.mkdir()
    name = "memory.max" if (group / "memory.max").exists() else "memory.limit_in_bytes"
    (group / name).write_text(str(limit))
    (group / "cgroup.procs").write_text(str(os.getpid()))


def remove_limits() -> None:
    """Remove the limits of processes that have ended."""
    parent = _groups()
    for group in parent.glob(f"{_GROUP}*") if parent else ():
        group.rmdir()


def can_limit() -> bool:
    """Whether `limit_memory` does anything here."""
    return _groups() is not None


def _groups() -> Path | None:
    """Return the folder of control groups in which this process may limit memory."""
    for folder in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
        limits = ("memory.limit_in_bytes", "cgroup.subtree_control")
        if any((folder / name).exists() for name in limits) and os.access(folder, os.W_OK):
            return folder
    return None
