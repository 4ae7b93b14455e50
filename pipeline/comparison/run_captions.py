"""A run's captions: from a file, a folder, or a git revision or DVC experiment."""

import os
import subprocess
import sys
from pathlib import Path

from pipeline.comparison.caption_files import Captions, read_captions
from pipeline.errors import InputError

# The search used by default, where a run has several: that of `caption image`.
DEFAULT_SEARCH = "beam_20"
_DEFAULTS = {"search": DEFAULT_SEARCH}

_PREDICTIONS = Path("artifacts/evaluation/predictions.parquet")
_PATHS_IN_FOLDER = ("predictions.parquet", "evaluation/predictions.parquet", str(_PREDICTIONS))


def read_run(run: str, search: str | None, scratch: Path) -> Captions:
    """Read the captions of a run.

    Args:
        run: a caption file, a folder with predictions.parquet, or a git revision or DVC
            experiment of this project.
        search: which captions; None means DEFAULT_SEARCH, if the run has several searches.
        scratch: a folder, to which the predictions of a revision are fetched.

    Raises:
        InputError: there is no such run, or it has no such captions.
    """
    path = _find_file(run)
    if path is not None:
        return read_captions(path, _DEFAULTS, search=search)
    path = _fetch_revision(run, scratch)
    try:
        return read_captions(path, _DEFAULTS, search=search)
    except InputError as error:
        # Name the file as git does: the fetched copy is deleted before the user could open it.
        message = str(error).replace(str(path), f"{run}:{_PREDICTIONS}")
        raise InputError(message) from None


def _find_file(run: str) -> Path | None:
    """Return the file with a run's captions; None if the run is neither a file nor a folder."""
    path = Path(run)
    # For names that are too long, pathlib raises; os.path never does.
    if os.path.isfile(run):  # noqa: PTH113
        return path
    if not os.path.isdir(run):  # noqa: PTH112
        return None
    for name in _PATHS_IN_FOLDER:
        if (path / name).is_file():
            return path / name
    raise InputError(f"{run} contains no predictions.parquet: run `dvc repro` there")


def _fetch_revision(revision: str, scratch: Path) -> Path:
    """Fetch the predictions of a revision with DVC; return their path."""
    path = scratch / f"{len(list(scratch.iterdir()))}.parquet"
    command = [sys.executable, "-m", "dvc", "get", ".", str(_PREDICTIONS)]
    command += [f"--rev={revision}", "--out", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  (the user's revision is part of --rev=)
    if result.returncode:
        reason = " ".join(result.stderr.split()) or f"exit code {result.returncode}"
        raise InputError(
            f"{revision} is not a file, a folder, or a revision with predictions in DVC "
            f"({reason}): `git log` and `dvc exp show` list revisions"
        )
    return path
