"""Checkpoints: the state of a training run, so that a killed run resumes after its last epoch."""

import json
import shutil
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import one_line
from pipeline.files import atomic_path

# The errors of NumPy on a damaged file; zipfile raises `RuntimeError` for flags and versions that
# it does not support.
_CORRUPTION_ERRORS = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile)
_MAX_AGE_DAYS = 30


class Checkpoint:
    """A folder in the cache with `state.npz`, which is replaced atomically after every epoch.

    The folder's name is the fingerprint of everything that determines the training, so a run
    never resumes from the state of a different one. The folder outlives the stage's outputs,
    which DVC deletes before it runs the stage again.
    """

    def __init__(self, cache: Path, training_fingerprint: str) -> None:
        """Name the folder below `cache`, without reading or creating anything."""
        self.folder = cache / "training" / training_fingerprint[:32]

    def save(self, arrays: dict[str, Any], metadata: dict[str, Any]) -> None:
        """Save arrays, and metadata that JSON can represent."""
        state = self.folder / "state.npz"
        text = json.dumps({"metadata": metadata, "arrays": list(arrays)})
        with atomic_path(state) as temporary, temporary.open("wb") as file:
            np.savez(file, metadata=np.array(text), **arrays)

    def load(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Return (arrays, metadata), or None if there is no checkpoint or it is damaged."""
        state = self.folder / "state.npz"
        if not state.exists():
            return None
        try:
            # Opened here because NumPy does not close the file if it is damaged.
            with state.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            text = json.loads(str(arrays.pop("metadata")))
            # Arrays can be missing from a damaged zip directory without zipfile noticing.
            if list(arrays) != text["arrays"]:
                raise ValueError("arrays are missing")
            return arrays, text["metadata"]
        except _CORRUPTION_ERRORS as error:
            print(one_line(f"{state} is damaged ({error}); training starts over"))
            return None

    def remove(self) -> None:
        """Remove the folder: the training is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)


def remove_abandoned_checkpoints(cache: Path) -> None:
    """Remove checkpoints that were not written to for `_MAX_AGE_DAYS`.

    The caller must be the only writer. Newer checkpoints of other trainings stay: the user may
    change the params back and resume one of them.
    """
    oldest = time.time() - _MAX_AGE_DAYS * 24 * 3600
    for state in (cache / "training").glob("*/state.npz"):
        if state.stat().st_mtime < oldest:
            shutil.rmtree(state.parent, ignore_errors=True)
