"""Keras 3, configured for the whole project: `from pipeline.backend import keras`.

The import takes seconds, so commands import it only when they need it.
"""

import gc
import importlib.util
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.system.memory import address_space_limit
from pipeline.system.software import BACKENDS, backend_name

# Bytes that TensorFlow 2.21 reserves on two cores, most of which it never touches.
_MIN_ADDRESS_SPACE = 2_200_000_000


@contextmanager
def _stderr_held_back() -> Iterator[None]:
    """Hold back what C++ code writes to file descriptor 2; show it only if the body fails.

    TensorFlow prints a screen of messages in every process before it reads
    TF_CPP_MIN_LOG_LEVEL. They would hide the one line of an error message.
    """
    sys.stderr.flush()
    original, failed = os.dup(2), True
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield
            failed = False
        finally:
            os.dup2(original, 2)
            os.close(original)
            if failed:
                held_back.seek(0)
                os.write(2, held_back.read())


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Exclude all objects that the body creates from garbage collection, permanently.

    Keras and TensorFlow create half a million objects that live until the process ends.
    Scanning them repeatedly, during the import and at exit, took nearly as long as the import
    itself.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def _check_address_space() -> None:
    """End the process with one line if Keras cannot be imported: its modules fail in many ways."""
    limit = address_space_limit()
    if limit is not None and limit < _MIN_ADDRESS_SPACE:
        sys.exit(
            f"error: Keras needs {_MIN_ADDRESS_SPACE / 1e9:.1f} GB of address space, and "
            f"{limit / 1e9:.1f} GB are allowed: raise the limit (`ulimit -v`)"
        )


def _check_backend(name: str) -> None:
    """End the process with one line if Keras cannot use the backend.

    Stages import this module before they could catch an `InputError`.
    """
    if name not in BACKENDS:
        problem = f"set it to {', '.join(BACKENDS[:-1])} or {BACKENDS[-1]}, or unset it"
        raise SystemExit(f"error: the environment's KERAS_BACKEND is {name!r}: {problem}")
    if importlib.util.find_spec(name) is None:
        raise SystemExit(
            f"error: the environment's KERAS_BACKEND is {name!r}, which is not installed: "
            f"`pip install {name}`, or unset it"
        )


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# On processors without AVX-512 TensorFlow uses Eigen by default, with which the last bits of a
# photo's vector depend on its position in the batch; oneDNN rounds the same at every position.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# A keras.json in the home folder could set another backend, which users would not expect.
os.environ["KERAS_BACKEND"] = backend_name()
_check_backend(os.environ["KERAS_BACKEND"])
_check_address_space()
with _stderr_held_back(), _without_garbage_collection():
    import keras
keras.config.set_floatx("float32")
keras.config.set_image_data_format("channels_last")

# TensorFlow warns at length about retracing for the few input shapes that a search uses.
logging.getLogger("tensorflow").setLevel(logging.ERROR)

# JAX depends on XLA. On TensorFlow, XLA made both Xception and the LSTM several times slower
# on a CPU (docs/decisions.md).
JIT_COMPILE: bool = keras.config.backend() == "jax"


def has_accelerator() -> bool:
    """Return whether Keras computes on a device other than the CPU."""
    if keras.config.backend() == "torch":  # Keras cannot list the devices of PyTorch
        import torch  # noqa: PLC0415  (not installed for other backends)

        return bool(torch.cuda.is_available())
    return any(not device.startswith("cpu") for device in keras.distribution.list_devices())


__all__ = ["JIT_COMPILE", "has_accelerator", "keras"]
