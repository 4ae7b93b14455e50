"""The software that computes results: recorded with them, because it decides their last bits."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

BACKENDS = ("tensorflow", "jax", "torch")
_PACKAGES = ("keras", "numpy", "pillow", "openvino")


def backend_name() -> str:
    """Return Keras' backend: that of KERAS_BACKEND, or TensorFlow if it is unset or empty."""
    return os.environ.get("KERAS_BACKEND") or "tensorflow"


def software(*, accelerated: bool) -> dict[str, str]:
    """Return the backend, the kind of device, and the versions of what computes results.

    Args:
        accelerated: whether Keras computes on another device than the CPU.
    """
    packages = (*_PACKAGES, backend_name())
    return {
        "backend": backend_name(),
        "device": "accelerator" if accelerated else "cpu",
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
