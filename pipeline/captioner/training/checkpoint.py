"""Checkpoints: a training in progress, so that a killed one goes on at its last epoch."""

import json
import shutil
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.files import atomic_path

# `RuntimeError` is what zipfile raises on flags and versions that it does not know.
_DAMAGE = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile)
_KEPT_DAYS = 30


class Checkpoint:
    """A folder in the cache: `state.npz`, replaced atomically after every epoch, and more.

    It is named by the fingerprint of all that decides the training, so that a training
    never goes on from another's state. It outlives the stage's outputs, which DVC deletes
    before it runs the stage again.
    """

    def __init__(self, cache: Path, training_fingerprint: str) -> None:
        """Name the folder below `cache`; nothing is read or made yet."""
        self.folder = cache / "training" / training_fingerprint[:32]

    def save(self, arrays: dict[str, Any], metadata: dict[str, Any]) -> None:
        """Keep arrays, and facts that are JSON."""
        state = self.folder / "state.npz"
        note = json.dumps({"metadata": metadata, "arrays": list(arrays)})
        with atomic_path(state) as temporary, temporary.open("wb") as file:
            np.savez(file, note=np.array(note), **arrays)

    def load(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Return (arrays, facts); None where there is none or it is damaged."""
        state = self.folder / "state.npz"
        if not state.exists():
            return None
        try:
            # Opened here: of a damaged file, NumPy would leave its own handle open.
            with state.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            note = json.loads(str(arrays.pop("note")))
            # A damaged table of contents can lose arrays that zipfile does not miss.
            if list(arrays) != note["arrays"]:
                raise ValueError("arrays are missing")
            return arrays, note["metadata"]
        except _DAMAGE as error:
            print(f"{state} is damaged ({error}); training starts anew")
            return None

    def remove(self) -> None:
        """Forget a training that has come to its end."""
        shutil.rmtree(self.folder, ignore_errors=True)


def remove_abandoned_checkpoints(cache: Path) -> None:
    """Remove checkpoints that nobody has gone on from for `_KEPT_DAYS`.

    For whoever alone may write there. One that another training could still go on from stays:
    params change back, too.
    """
    before = time.time() - _KEPT_DAYS * 24 * 3600
    for state in (cache / "training").glob("*/state.npz"):
        if state.stat().st_mtime < before:
            shutil.rmtree(state.parent, ignore_errors=True)
