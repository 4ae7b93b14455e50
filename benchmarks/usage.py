"""The memory that this process uses, as the system reports it."""

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_memory() -> int:
    """Return the peak memory of this process in bytes.

    Linux reports it in VmHWM; `ru_maxrss` would start at the value of the parent process.
    """
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return _read_status("VmHWM")


def anonymous_memory() -> int:
    """Return the bytes of memory that no file backs; 0 where the system does not report them."""
    return _read_status("RssAnon") if _STATUS.exists() else 0


def _read_status(name: str) -> int:
    line = next(line for line in _STATUS.read_text("utf-8").splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
