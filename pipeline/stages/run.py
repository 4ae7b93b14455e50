"""Running a stage: its error messages and exit codes."""

import errno
import sys
from collections.abc import Callable

from pipeline.errors import InputError, one_line
from pipeline.streams import discard_output, prepare_streams

# Disk errors that the user can fix; all others are defects and keep their traceback.
_DISK_FIXES = {
    errno.ENOSPC: "free some space and rerun; finished work is kept",
    errno.EDQUOT: "free some space and rerun; finished work is kept",
    errno.EACCES: "make it writable for you",
    errno.EPERM: "make it writable for you",
    errno.EROFS: "make it writable for you",
    errno.EFBIG: "the disk or your limits do not allow a file this large; use another disk, or "
    "raise the limit",
    errno.EIO: "check that disk for errors",
    errno.EISDIR: "move the folder with that name away",
    errno.ENOTDIR: "move the file that is in the place of a folder away",
    errno.EEXIST: "move the file that is in the place of a folder away",
}


def run_stage(stage: Callable[[], None]) -> None:
    """Run a stage's entry point; end with one line on bad input, a disk error or Ctrl-C.

    Exit codes: 1 for bad input, a disk error or a closed output, 130 for an interrupt (as
    shells report SIGINT).
    """
    prepare_streams()
    try:
        stage()
        sys.stdout.flush()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except BrokenPipeError:  # as in `dvc repro | head`
        discard_output()
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno not in _DISK_FIXES:
            raise
        path = one_line(str(error.filename or "the disk"))
        print(f"error: {path}: {error.strerror}: {_DISK_FIXES[error.errno]}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted; run `dvc repro` to resume", file=sys.stderr)
        raise SystemExit(130) from None
