"""The one error a user is meant to read: it names the thing and the mend."""

import errno
import re
import sys
from collections.abc import Callable

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

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class InputError(Exception):
    """Something the user gave is unusable.

    The message is one line: the file (with row or key where there is one), what is
    wrong with it, and what to do. It is shown as it stands, without a traceback.
    """

    def __init__(self, message: str) -> None:
        # It may name a stranger's file.
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """Return text that may have line breaks, or orders to a terminal, as one plain line."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def collapsed(error: Exception) -> str:
    """Return what an error says, over several lines perhaps, as a phrase."""
    return " ".join(str(error).split())


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
