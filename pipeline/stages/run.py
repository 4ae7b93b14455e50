"""Running a stage: its error messages and exit codes."""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline import dvc_cache
from pipeline.errors import InputError

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

    Exit codes: 1 for bad input or a disk error, 130 for an interrupt (as shells report
    SIGINT).
    """
    try:
        _check_folders()
        stage()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        _print_way_back()
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno not in _DISK_FIXES:
            raise
        path = error.filename or "the disk"
        print(f"error: {path}: {error.strerror}: {_DISK_FIXES[error.errno]}", file=sys.stderr)
        _print_way_back()
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted; run `dvc repro` to resume", file=sys.stderr)
        raise SystemExit(130) from None


def _check_folders() -> None:
    """Check that DVC will accept the outputs, which it says only after the stage.

    Raises:
        InputError: a folder of outputs is a link that leads out of the project.
    """
    for name in ("artifacts", "data") if "DVC_STAGE" in os.environ else ():
        target = Path(name).resolve()
        if not target.is_relative_to(Path.cwd()):
            raise InputError(
                f"{name} is a link to {target}, and DVC tracks no files outside the project: make "
                f"it a folder again (`rm {name}; mv {target} {name}`); to keep large files on "
                "another disk, move DVC's cache there and let DVC link to it: `dvc cache dir "
                "--local OTHER_DISK/dvc-cache` and `dvc config --local cache.type symlink`"
            )


def _print_way_back() -> None:
    """Say how the outputs come back that DVC removed before it ran the stage."""
    stage = os.environ.get("DVC_STAGE")
    # The output of `dataset` is in no cache, and tells nothing.
    if not stage or stage == "dataset":
        return
    if dvc_cache.find_main_project() is None and dvc_cache.find_removed_outputs(stage):
        print(
            "DVC removed what this stage wrote before: `dvc checkout` brings it back",
            file=sys.stderr,
        )
