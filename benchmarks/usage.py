"""Memory that this process uses, as its system counts it."""

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_memory() -> int:
    """Return the most bytes that this process has had in memory at once.

    On Linux not `ru_maxrss`, which a process begins with from the one that started it.
    """
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return _counted("VmHWM")


def own_memory() -> int:
    """Return the bytes now in memory that are of no file; 0 where nobody counts them."""
    return _counted("RssAnon") if _STATUS.exists() else 0


def _counted(name: str) -> int:
    line = next(line for line in _STATUS.read_text("utf-8").splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
