"""The one error a user is meant to read: it names the thing and the mend."""

import sys
from collections.abc import Callable


class InputError(Exception):
    """Something the user gave is unusable.

    The message is one line: the file (with row or key where there is one), what is
    wrong with it, and what to do. It is shown as it stands, without a traceback.
    """


def run_stage(stage: Callable[[], None]) -> None:
    """Run a stage's entry point; an `InputError` or Ctrl-C ends it with one line.

    Exit codes: 1 for bad input, 130 when interrupted (the shell's own for SIGINT).
    """
    try:
        stage()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("interrupted; run `dvc repro` to go on", file=sys.stderr)
        raise SystemExit(130) from None
