"""Keras weights files: written atomically, and checked before Keras reads them."""

import hashlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import InputError, collapsed
from pipeline.files import atomic_path, check_disk_space
from pipeline.storage.hdf5 import DAMAGE, arrays, open_self_contained

_BESIDE_NUMBERS = 1 << 23  # bytes of a weights file that are no numbers, at most


def digest(model: Any) -> str:
    """SHA-256 of a model's weights, `get_weights()` in order as little-endian float32."""
    state = hashlib.sha256()
    for array in model.get_weights():
        state.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
    return state.hexdigest()


def load(model: Any, path: Path, fix: str) -> None:
    """Fill `model` from a weights file, after checking that the file is nothing else.

    Raises:
        InputError: the file is absent, damaged, reaches outside itself, or has other
            layers, shapes or kinds of number; the message ends in `fix`.
    """
    check_weights_file(path, fix)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of parts it lacks, before Keras gives up
            model.load_weights(path)
    except DAMAGE as error:
        reason = collapsed(error)[:200]
        raise InputError(f"{path} does not fit {model.name} ({reason}): {fix}") from None


def save(model: Any, path: Path) -> None:
    """Write a model's weights as Keras' .weights.h5: equal weights, equal bytes.

    Raises:
        OSError: the disk is full.
    """
    numbers = sum(array.nbytes for array in model.get_weights())
    with atomic_path(path) as temporary:
        # Keras leaves the file to HDF5, which crashes on a full disk (see `hdf5.Disk`).
        check_disk_space(temporary, numbers + _BESIDE_NUMBERS)
        model.save_weights(temporary)


def check_weights_file(path: Path, fix: str) -> None:
    """Refuse an HDF5 file that is damaged or holds anything but arrays of numbers."""
    with open_self_contained(path, fix) as file:
        for array in arrays(file):
            try:
                kind = array.dtype
            except TypeError as error:  # HDF5 has kinds that NumPy lacks
                raise InputError(
                    f"{path}: {array.name} holds no numbers ({error}): {fix}"
                ) from None
            if kind.kind not in "fiu":
                raise InputError(f"{path}: {array.name} holds {kind}, no numbers: {fix}")
