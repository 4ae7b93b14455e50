"""Running a stage: its error messages and exit codes."""

import sys
from collections.abc import Callable

from pipeline.errors import InputError
from pipeline.streams import discard_output, prepare_streams
from pipeline.system_errors import Terminated, describe, raise_on_signals

_INTERRUPTED = "interrupted; run `dvc repro` to resume"


def run_stage(stage: Callable[[], None]) -> None:
    """Run a stage's entry point; end with one line on bad input, a system error or Ctrl-C.

    Exit codes: 1 for bad input, an error of the system or a closed output, 130 for an interrupt
    (as shells report SIGINT), 143 for SIGTERM.
    """
    prepare_streams()
    try:
        raise_on_signals()
        stage()
        sys.stdout.flush()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except BrokenPipeError:  # as in `dvc repro | head`
        discard_output()
        raise SystemExit(1) from None
    except (OSError, MemoryError) as error:
        message = describe(error)
        if message is None:  # a defect, which keeps its traceback
            raise
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print(_INTERRUPTED, file=sys.stderr)
        raise SystemExit(130) from None
    except Terminated:
        print(_INTERRUPTED, file=sys.stderr)
        raise
