"""Keras 3, as the whole project imports it: `from pipeline.backend import keras`.

Importing it costs seconds, so the command line does so only where it computes.
"""

import gc
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _stderr_kept_aside() -> Iterator[None]:
    """Hold back what C++ writes to file descriptor 2; show it only if the body fails.

    TensorFlow greets every process with a screen of advice before it reads
    TF_CPP_MIN_LOG_LEVEL, which would bury the one line an error is meant to be.
    """
    sys.stderr.flush()
    kept, failed = os.dup(2), True
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            yield
            failed = False
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            if failed:
                aside.seek(0)
                os.write(2, aside.read())


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector off what the body makes, for good.

    Keras and TensorFlow are half a million objects that stay to the end: to go through them
    again and again, in the import and at the process's exit, took nearly as long as the rest.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow's own choice on processors without AVX-512 is Eigen, with which the last bits of a
# photo's vector depend on its place in the batch; oneDNN rounds the same everywhere.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# A file in the home folder could say otherwise, which nobody would think of.
os.environ["KERAS_BACKEND"] = os.environ.get("KERAS_BACKEND") or "tensorflow"
with _stderr_kept_aside(), _uncollected():
    import keras
keras.config.set_floatx("float32")
keras.config.set_image_data_format("channels_last")

# It takes the few shapes that a search has for a mistake, and says so at length.
logging.getLogger("tensorflow").setLevel(logging.ERROR)

# XLA pays on JAX, which is nothing without it; on TensorFlow it made both Xception and
# the LSTM several times slower on a CPU (docs/decisions.md).
JIT_COMPILE: bool = keras.config.backend() == "jax"


def has_accelerator() -> bool:
    """Return whether Keras computes on anything but this machine's processor."""
    if keras.config.backend() == "torch":  # of which Keras cannot list the devices
        import torch  # noqa: PLC0415  (not installed for other backends)

        return bool(torch.cuda.is_available())
    return any(not device.startswith("cpu") for device in keras.distribution.list_devices())


__all__ = ["JIT_COMPILE", "has_accelerator", "keras"]
