"""Memory: a size that cannot be had is refused before anything is allocated."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pipeline.errors import InputError

# Limits of the container, of control groups version 2 and 1; "max" or a huge number is none.
_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def check_memory(size: int, purpose: str, fix: str) -> None:
    """Check that this process may have `size` bytes of memory.

    The estimate need not be exact: a size that only nearly fits ends in the system's own error.

    Args:
        size: number of bytes.
        purpose: what they are for; the subject of the message.
        fix: names the param to change.

    Raises:
        InputError: the machine, the container or the shell's limit (`ulimit -v`) has less.
    """
    limit = memory_limit()
    if limit is not None and size > limit:
        raise InputError(
            f"params.yaml: {purpose} takes about {_gigabytes(size)} of memory, and "
            f"{_gigabytes(limit)} are there: {fix}"
        )


def memory_limit() -> int | None:
    """Return the number of bytes that this process may use at most; None if nothing tells."""
    return min(_limits(), default=None)


def address_space_limit() -> int | None:
    """Return the bytes of address space that `ulimit -v` allows; None if it sets no limit."""
    try:
        import resource  # noqa: PLC0415  (Windows has none)
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


def _limits() -> Iterator[int]:
    with suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        yield os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if (shell_limit := address_space_limit()) is not None:
        yield shell_limit
    for path in _CGROUP_LIMITS:
        try:
            yield int(path.read_text())
        except (OSError, ValueError):
            continue


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
