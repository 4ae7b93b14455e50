"""Errors of the system as one line, and signals: for the stages and for `caption`."""

import errno
import os
import signal
import sys
from contextlib import suppress
from types import FrameType, TracebackType
from typing import NoReturn

from pipeline.errors import one_line

_FREE = "free some space and rerun; finished work is kept"
_WRITABLE = "make it readable and writable for you"
_OPEN_FILES = "raise the limit of open files (`ulimit -n`) and rerun"
_FIXES = {
    errno.ENOSPC: _FREE,
    errno.EDQUOT: _FREE,
    errno.EACCES: _WRITABLE,
    errno.EPERM: _WRITABLE,
    errno.EROFS: _WRITABLE,
    errno.EFBIG: "the disk or your limits do not allow a file this large; use another disk, or "
    "raise the limit",
    errno.EIO: "check that disk for errors",
    errno.EISDIR: "move the folder with that name away",
    errno.ENOTDIR: "move the file that is in the place of a folder away",
    errno.EEXIST: "move the file that is in the place of a folder away",
    errno.EMFILE: _OPEN_FILES,
    errno.ENFILE: _OPEN_FILES,
    errno.ENOMEM: "end other programs and rerun",
    errno.EXDEV: "its folder is spread over two disks; use a folder on one disk",
}
_OTHER = "a fault of the disk or the system; once it is fixed, rerun: finished work is kept"


class Terminated(SystemExit):
    """The process was asked to end by SIGTERM."""


def describe(error: OSError | MemoryError) -> str | None:
    """Return one line: what failed and the fix; None for an error that no system reported."""
    if isinstance(error, MemoryError):
        return "there is not enough memory: end other programs, or lower the sizes in params.yaml"
    if "temporary directory" in str(error):  # of `tempfile`, with the number of another error
        return "there is no folder for temporary files: set TMPDIR to one that is writable for you"
    if error.errno is None:
        return None
    path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "the disk"
    reason = error.strerror or errno.errorcode.get(error.errno, str(error.errno))
    return one_line(f"{path}: {reason}: {_FIXES.get(error.errno, _OTHER)}")


def guard_imports(message: str) -> None:
    """Until `raise_on_signals`, let Ctrl-C, SIGTERM and errors of the system end with one line.

    While imports run there is nothing to clean up, and modules of other projects turn a
    `KeyboardInterrupt` in their imports into errors of their own. TensorFlow fails to load without
    a folder for temporary files.

    Args:
        message: the line for Ctrl-C and SIGTERM, whose exit codes are 128 + the signal's number.
    """
    sys.excepthook = _print_system_error
    try:
        standard_error = os.dup(2)  # `pipeline.backend` puts a file in its place while Keras loads
    except OSError:  # it is closed
        standard_error = -1

    def end(number: int, _: FrameType | None) -> NoReturn:
        with suppress(OSError):
            os.write(standard_error, f"{message}\n".encode())
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` and background jobs want
            signal.signal(number, end)


def _print_system_error(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    line = describe(error) if isinstance(error, OSError | MemoryError) else None
    if line is None:
        sys.__excepthook__(kind, error, traceback)
    else:
        print(f"error: {line}", file=sys.stderr)


def raise_on_signals() -> None:
    """Raise `KeyboardInterrupt` on Ctrl-C and `Terminated` on SIGTERM, so temporary files go.

    Python's own handling of SIGTERM ends the process at once.
    """

    def end(number: int, _: FrameType | None) -> NoReturn:
        signal.signal(number, signal.SIG_IGN)  # a second one must not cut the cleaning short
        raise Terminated(128 + number)

    if sys.excepthook is _print_system_error:
        sys.excepthook = sys.__excepthook__
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGTERM) != signal.SIG_IGN:
        signal.signal(signal.SIGTERM, end)
