"""Memory limits for benchmark processes, page cache included."""

import os
from pathlib import Path

_GROUP = "caption-benchmark-"


def limit_memory(limit: int | None) -> None:
    """Limit the memory of this process to so many bytes, if the system allows it."""
    parent = _control_groups()
    if limit is None or parent is None:
        return
    group = parent / f"{_GROUP}{os.getpid()}"
    group.mkdir()
    name = "memory.max" if (group / "memory.max").exists() else "memory.limit_in_bytes"
    (group / name).write_text(str(limit))
    (group / "cgroup.procs").write_text(str(os.getpid()))


def remove_limits() -> None:
    """Remove the limits of processes that have ended."""
    parent = _control_groups()
    for group in parent.glob(f"{_GROUP}*") if parent else ():
        group.rmdir()


def can_limit() -> bool:
    """Return whether `limit_memory` has an effect on this machine."""
    return _control_groups() is not None


def _control_groups() -> Path | None:
    """Return the folder of control groups in which this process may limit memory."""
    for folder in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
        files = ("memory.limit_in_bytes", "cgroup.subtree_control")
        if any((folder / name).exists() for name in files) and os.access(folder, os.W_OK):
            return folder
    return None
