"""Running a stage: its error messages and exit codes."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import InputError
from pipeline.system import dvc_cache
from pipeline.system.failures import Terminated, describe, raise_on_signals
from pipeline.system.streams import discard_output, prepare_streams

_INTERRUPTED = "interrupted; run `dvc repro` to resume"


def run_stage(stage: Callable[[], None]) -> None:
    """Run a stage's entry point; end with one line on bad input, a system error or Ctrl-C.

    Exit codes: 1 for bad input, an error of the system or a closed output, 130 for an interrupt
    (as shells report SIGINT), 143 for SIGTERM.
    """
    prepare_streams()
    try:
        raise_on_signals()
        _check_folders()
        stage()
        sys.stdout.flush()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        _print_way_back()
        raise SystemExit(1) from None
    except BrokenPipeError:  # as in `dvc repro | head`
        discard_output()
        raise SystemExit(1) from None
    except (OSError, MemoryError) as error:
        message = describe(error)
        if message is None:  # a defect, which keeps its traceback
            raise
        print(f"error: {message}", file=sys.stderr)
        _print_way_back()
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print(_INTERRUPTED, file=sys.stderr)
        raise SystemExit(130) from None
    except Terminated:
        print(_INTERRUPTED, file=sys.stderr)
        raise


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
