"""The software that two runs were trained with: a cause of differences that no param shows."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, one_line
from pipeline.files import read_json

_MODEL = "model/model.json"
_FOLDERS = (Path(), Path(".."), Path("artifacts"))  # of a run, beside the folder with predictions


def software_differences(runs: Sequence[str], scratch: Path) -> list[str]:
    """Return lines about the software in which two runs differ; none if a run records none.

    Args:
        runs: the two runs, as `caption compare` takes them.
        scratch: a folder, to which the model.json of a revision is fetched.
    """
    first, second = (_software(run, scratch / f"{n}.json") for n, run in enumerate(runs))
    if not first or not second:
        return []
    return [
        one_line(f"trained with other software: {name} {first.get(name)} and {second.get(name)}")
        for name in sorted({*first, *second})
        if first.get(name) != second.get(name)
    ]


def _software(run: str, scratch: Path) -> Mapping[str, Any]:
    path = _model_file(run, scratch)
    if path is None:
        return {}
    try:
        metadata = read_json(path, "run `dvc repro train`").get("metadata")
    except InputError:  # captions alone can be compared, too
        return {}
    software = metadata.get("software") if isinstance(metadata, dict) else None
    return software if isinstance(software, dict) else {}


def _model_file(run: str, scratch: Path) -> Path | None:
    path = Path(run)
    if path.is_file():  # a caption file
        return None
    if path.is_dir():
        files = (path / folder / _MODEL for folder in _FOLDERS)
        return next((file for file in files if file.is_file()), None)
    command = [sys.executable, "-m", "dvc", "get", ".", f"artifacts/{_MODEL}", f"--rev={run}"]
    command += ["--out", str(scratch)]
    result = subprocess.run(command, capture_output=True, check=False)  # noqa: S603  (the user's revision is part of --rev=)
    return scratch if result.returncode == 0 else None
