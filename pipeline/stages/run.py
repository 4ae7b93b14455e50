"""Running a stage: how each one ends, and with which exit code."""

import errno
import sys
from collections.abc import Callable

from pipeline.errors import InputError

# What the machine, not the program, has to mend.
_DISK_MENDS = {
    errno.ENOSPC: "free some space; what was computed is kept",
    errno.EDQUOT: "free some space; what was computed is kept",
    errno.EACCES: "make it writable for you",
    errno.EPERM: "make it writable for you",
    errno.EROFS: "make it writable for you",
    errno.EFBIG: "it takes no file so large; take another disk, or lift your limits",
    errno.EIO: "look after that disk",
    errno.EISDIR: "move the folder of that name away",
    errno.ENOTDIR: "move the file in the place of a folder away",
    errno.EEXIST: "move the file in the place of a folder away",
}


def run_stage(stage: Callable[[], None]) -> None:
    """Run a stage's entry point; bad input, a full disk or Ctrl-C ends it with one line.

    Exit codes: 1 for bad input or a disk that takes no more, 130 when interrupted (the
    shell's own for SIGINT).
    """
    try:
        stage()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno not in _DISK_MENDS:
            raise
        where = error.filename or "the disk"
        print(f"error: {where}: {error.strerror}: {_DISK_MENDS[error.errno]}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted; run `dvc repro` to go on", file=sys.stderr)
        raise SystemExit(130) from None
