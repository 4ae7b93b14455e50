"""Checkpoints: the state of a training run, so that a killed run resumes after its last epoch."""

import json
import shutil
import time
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import collapsed_message, one_line
from pipeline.files import atomic_path, remove_temporary_files

_STATE = "state.npz"
# The errors of NumPy and JSON on a damaged file; zipfile raises `RuntimeError` for flags and
# versions that it does not support.
_CORRUPTION_ERRORS = (
    *(OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, MemoryError),
    *(OverflowError, zipfile.BadZipFile, zlib.error),
)
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
        state = self.folder / _STATE
        text = json.dumps({"metadata": metadata, "arrays": list(arrays)})
        with atomic_path(state) as temporary, temporary.open("wb") as file:
            np.savez(file, metadata=np.array(text), **arrays)

    def load(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Return (arrays, metadata), or None if there is no checkpoint.

        A damaged one is set aside. The caller must be the only writer.
        """
        remove_temporary_files(self.folder, _STATE)
        state = self.folder / _STATE
        if not state.exists():
            return None
        try:
            return _read_state(state)
        except _CORRUPTION_ERRORS as error:
            self.set_aside(error)
            return None

    def set_aside(self, error: Exception) -> None:
        """Rename a checkpoint that cannot be used, so that it is reported once, and report it."""
        state = self.folder / _STATE
        damaged = state.with_name(f"{_STATE}.damaged")
        with suppress(OSError):  # otherwise the next checkpoint replaces it, or says why it cannot
            state.replace(damaged)
        reason = one_line(collapsed_message(error))[:200] or type(error).__name__
        print(f"{state} is damaged ({reason}); training starts over", flush=True)

    def remove(self) -> None:
        """Remove the folder: the training is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _read_state(state: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a file that `Checkpoint.save` wrote; raise one of `_CORRUPTION_ERRORS` for others."""
    if not state.is_file():  # reading a FIFO would wait forever
        raise ValueError("not a file")
    # Opened here because NumPy does not close the file if it is damaged.
    with state.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        # Arrays are saved uncompressed: larger ones would be a decompression bomb.
        if sum(info.file_size for info in file.zip.infolist()) > state.stat().st_size:
            raise ValueError("its arrays are larger than the file")
        arrays = {name: file[name] for name in file.files}
    text = json.loads(str(arrays.pop("metadata")))
    # Arrays can be missing from a damaged zip directory without zipfile noticing.
    if list(arrays) != text["arrays"]:
        raise ValueError("arrays are missing")
    if not isinstance(text["metadata"], dict):
        raise TypeError("its metadata is no object")
    return arrays, text["metadata"]


def remove_abandoned_checkpoints(cache: Path) -> None:
    """Remove checkpoints that were not written to for `_MAX_AGE_DAYS`.

    The caller must be the only writer. Newer checkpoints of other trainings stay: the user may
    change the params back and resume one of them.
    """
    oldest = time.time() - _MAX_AGE_DAYS * 24 * 3600
    for state in (cache / "training").glob(f"*/{_STATE}*"):
        if state.stat().st_mtime < oldest:
            shutil.rmtree(state.parent, ignore_errors=True)
