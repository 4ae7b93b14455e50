"""Keras weights files: written atomically, and checked before Keras loads them."""

import hashlib
import math
import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.errors import InputError, collapsed_message
from pipeline.files import atomic_path, check_disk_space, raise_system_error
from pipeline.storage.hdf5 import CORRUPTION_ERRORS, iter_datasets, open_self_contained

_MAX_OVERHEAD = 1 << 23  # maximum bytes of a weights file in addition to the weights


def digest(model: Any) -> str:
    """Return the SHA-256 of a model's `get_weights()`, in order, as little-endian float32."""
    state = hashlib.sha256()
    for array in model.get_weights():
        state.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
    return state.hexdigest()


def load(model: Any, path: Path, fix: str) -> None:
    """Load a weights file into `model`, after checking that it holds nothing but numbers.

    Args:
        model: a `keras.Model`.
        path: the weights file.
        fix: what the user can do about a bad file; the end of error messages.

    Raises:
        InputError: the file is absent, damaged, refers to other files, or has other layers,
            shapes or dtypes than the model.
    """
    check_weights_file(path, fix, max((a.size for a in model.get_weights()), default=0))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about missing layers, before Keras raises an error
            model.load_weights(path)
    except CORRUPTION_ERRORS as error:
        raise_system_error(error, path)
        reason = collapsed_message(error)[:200]
        raise InputError(f"{path} does not fit {model.name} ({reason}): {fix}") from None
    for variable in model.weights:
        if not np.isfinite(np.asarray(variable)).all():
            raise InputError(f"{path}: {variable.path} has NaN or infinite numbers: {fix}")


def save(model: Any, path: Path) -> None:
    """Save a model's weights as Keras' .weights.h5; equal weights give equal bytes.

    Raises:
        OSError: the disk is full.
    """
    weights_size = sum(array.nbytes for array in model.get_weights())
    with atomic_path(path) as temporary:
        # Keras writes through HDF5, which crashes on a full disk (see `hdf5.DeferredErrorFile`).
        check_disk_space(temporary, weights_size + _MAX_OVERHEAD)
        model.save_weights(temporary)


def check_weights_file(path: Path, fix: str, max_size: int) -> None:
    """Refuse an HDF5 file that is damaged or holds anything but arrays of numbers.

    Args:
        path: the file.
        fix: what the user can do about a bad file; the end of error messages.
        max_size: the most numbers that an array may have if they take more than the file:
            compressed chunks can hold an array that fits into no memory.

    Raises:
        InputError: the file is refused.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is not a file: {fix}")  # to open a FIFO would wait for ever
    with open_self_contained(path, fix) as file:
        for dataset in iter_datasets(file):
            try:
                problem = _find_problem(dataset, max_size)
            except CORRUPTION_ERRORS as error:  # an HDF5 type that NumPy lacks, or damage
                problem = f"does not hold numbers ({collapsed_message(error)})"
            if problem:
                raise InputError(f"{path}: {dataset.name} {problem}: {fix}")


def _find_problem(dataset: Any, max_size: int) -> str | None:
    """Return what is wrong with a member of a weights file."""
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        return "is not an array"
    if dataset.dtype.kind not in "fiu":
        return f"holds {dataset.dtype}, not numbers"
    size = max(dataset.size, math.prod(dataset.chunks or ()))
    if size > max_size and size * dataset.dtype.itemsize > dataset.file.id.get_filesize():
        return f"has the shape {dataset.shape}, larger than any weights of the network"
    # Keras reads this attribute. A damaged one of variable length crashes HDF5.
    if "dtype" in dataset.attrs:
        return "has an attribute dtype, so it is not of a type that can be read"
    return None
