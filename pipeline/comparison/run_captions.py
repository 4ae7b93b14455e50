"""A run's captions: from a file, a folder, or a git revision or DVC experiment."""

import os
from pathlib import Path

from pipeline.comparison.caption_files import Captions, read_captions
from pipeline.errors import InputError
from pipeline.system.dvc import DvcError, run_dvc

# The search used by default, where a run has several: that of `caption image`.
DEFAULT_SEARCH = "beam_40"
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
    raise InputError(
        f"{run} contains no predictions.parquet: name the artifacts folder of a finished run, or "
        "run `dvc repro` there"
    )


def _fetch_revision(revision: str, scratch: Path) -> Path:
    """Fetch the predictions of a revision with DVC; return their path."""
    path = scratch / f"{len(list(scratch.iterdir()))}.parquet"
    options = [f"--rev={revision}", "--out", str(path)]
    try:
        run_dvc(["get", ".", str(_PREDICTIONS), *options])
    except DvcError as error:
        raise InputError(_explain(revision, str(error))) from None
    return path


def _explain(revision: str, reason: str) -> str:
    """Return the message about a revision that DVC cannot fetch."""
    if "not a git repository" in reason:
        return (
            f"{revision} is not a file or a folder, and there is no git repository here: run this "
            "in the project's folder, or name folders"
        )
    if "unknown Git revision" in reason:
        return (
            f"{revision} is not a file, a folder, a git revision or an experiment: `git log` and "
            "`dvc exp list` list them"
        )
    if str(_PREDICTIONS) in reason:
        return (
            f"{revision} has no predictions that DVC can fetch: its commit lacks dvc.lock, or the "
            "cache lacks the file: `dvc exp list` names runs that are kept (`make repro` keeps "
            "`first`), `dvc fetch --all-commits` gets files from a remote"
        )
    return f"the predictions of {revision} cannot be fetched ({reason}): try `dvc exp list`"
