"""DVC's side of a checkout: outputs, their copies in DVC's cache, and experiments' workspaces."""

import os
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.system.dvc import DvcError, run_dvc

_LOCK = "dvc.lock"
_LAYOUT = ("files", "md5")  # below the cache's folder, since DVC 3
_OBJECT = re.compile(r"[0-9a-f]{32}")  # the digest that names a file, without its slash


@cache
def find_object_folder() -> Path | None:
    """Return the folder of DVC's cache that holds files by digest; None outside a DVC project.

    Links are followed.

    DVC is asked, in a process of half a second, because several files and the environment
    configure the folder.
    """
    try:
        output = run_dvc(["cache", "dir"])
    except DvcError:
        return None
    folder = Path(output.strip().splitlines()[-1]).resolve()
    return folder if folder.parts[-2:] == _LAYOUT else folder.joinpath(*_LAYOUT)


def is_object(path: Path) -> bool:
    """Return whether a path, with links followed, is a file in DVC's cache."""
    # Most links lead elsewhere: their names answer faster than DVC.
    if path.parts[-4:-2] != _LAYOUT or not _OBJECT.fullmatch("".join(path.parts[-2:])):
        return False
    folder = find_object_folder()
    return folder is not None and path.is_relative_to(folder)


def find_copies(output: Path) -> Iterator[Path]:
    """Yield the files that hold an output of a stage: itself, then copies in DVC's cache.

    DVC deletes outputs before their stage runs. What dvc.lock recorded, here or in the last
    commit, is in DVC's cache after a run or `dvc pull`, in other worktrees and in the workspaces
    of experiments.

    Args:
        output: path relative to the project, as in dvc.yaml.
    """
    if output.is_file():
        yield output
    digests = dict.fromkeys(
        md5
        for lock in (_read(Path(_LOCK)), _run(["git", "show", f"HEAD:./{_LOCK}"]))
        if (md5 := _recorded_md5(lock, output))
    )
    folder = find_object_folder() if digests else None
    if folder is not None:
        copies = (folder / md5[:2] / md5[2:] for md5 in digests)
        yield from (path for path in copies if path.is_file())


def find_removed_outputs(stage: str) -> list[str]:
    """Return the outputs of a stage that are not there now and that `dvc checkout` restores."""
    removed = [
        (path, md5)
        for name, path, md5 in _recorded_outputs(_read(Path(_LOCK)))
        if name == stage and not Path(path).exists()
    ]
    folder = find_object_folder() if removed else None
    if folder is None:
        return []
    return [path for path, md5 in removed if (folder / md5[:2] / md5[2:]).exists()]


def find_main_project() -> Path | None:
    """Return the project's folder if this is the workspace of an experiment; else None.

    DVC runs queued experiments, and those of `dvc exp run --temp`, in folders with nothing but
    what git and DVC track, and removes these folders afterwards.
    """
    root = os.environ.get("DVC_ROOT")  # set by DVC for each stage
    if root and Path.cwd().is_relative_to(Path(root, ".dvc", "tmp", "exps").resolve()):
        return Path(root)
    return None


def _recorded_md5(lock: str, output: Path) -> str | None:
    """Return the digest of an output in the text of a dvc.lock; None if it has none."""
    found = [md5 for _, path, md5 in _recorded_outputs(lock) if path == output.as_posix()]
    return found[0] if found and found[0].isalnum() else None


def _recorded_outputs(lock: str) -> list[tuple[str, str, str]]:
    """Return stage, path and digest of the outputs in the text of a dvc.lock."""
    try:
        stages: dict[str, Any] = YAML(typ="safe").load(lock)["stages"]
        return [
            (name, str(out["path"]), str(out.get("md5")))
            for name, stage in stages.items()
            for out in stage.get("outs", [])
        ]
    except (YAMLError, AttributeError, KeyError, TypeError):  # no lock, or none of DVC's
        return []


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _run(command: list[str]) -> str:
    """Return a command's output; nothing if it fails or is not installed."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  (no user input in it)
    except OSError:
        return ""
    return "" if result.returncode else result.stdout
