"""DVC, run as a process."""

import subprocess
import sys
from collections.abc import Sequence

# What DVC adds to an error that it did not expect.
_BEGGING = "Having any troubles?"
_PREFIXES = ("ERROR: ", "unexpected error - ")


class DvcError(Exception):
    """DVC failed; the message is its reason, on one line."""


def run_dvc(arguments: Sequence[str]) -> str:
    """Run `dvc` and return what it prints.

    Raises:
        DvcError: it fails.
    """
    command = [sys.executable, "-m", "dvc", *arguments]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  (arguments are no shell text)
    except OSError as error:
        raise DvcError(str(error)) from None
    if result.returncode:
        raise DvcError(_reason(result.stderr) or f"exit code {result.returncode}")
    return result.stdout


def _reason(errors: str) -> str:
    """Return DVC's own reason, without its warnings and its address for support."""
    text = " ".join(errors.partition(_BEGGING)[0].split())
    text = text[max(text.rfind("ERROR: "), 0) :]
    for prefix in _PREFIXES:
        text = text.removeprefix(prefix)
    return text
