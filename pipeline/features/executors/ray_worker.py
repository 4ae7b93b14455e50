"""The part of the Ray executor that runs on each machine of the cluster.

Nothing here imports Ray: the functions and the actor class are called with plain rows.
"""

import importlib.metadata
import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import InputError
from pipeline.features.decoding.photos import PhotoError, PhotoFile
from pipeline.features.encoders.engines import Engine, Pixels
from pipeline.features.executors.local import read_and_decode, store_batch
from pipeline.features.shard_cache import ShardCache

# How often workers may die on one batch. Ray restarts them without end, and a photo that
# crashes the decoder, or a machine with too little memory for a batch, would kill each one.
_MAX_DEATHS = 4
# The packages that decide a vector's last bits. If their versions differed between machines, a
# vector would depend on the machine that computed it.
_PACKAGES = ("keras", "tensorflow", "jax", "torch", "openvino", "numpy", "pillow")


def json_batches(photos: Mapping[str, PhotoFile], size: int) -> list[str]:
    """Split photos into batches of `size`, as JSON: it can carry file names that are not Unicode.

    Returns:
        For each batch a JSON list of [sha256, absolute path].
    """
    pairs = [(sha, str(photo.path.absolute())) for sha, photo in photos.items()]
    return [json.dumps(pairs[first : first + size]) for first in range(0, len(pairs), size)]


def package_versions() -> dict[str, str | None]:
    """Return the versions of `_PACKAGES`; None for a package that is not installed."""
    versions: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


@dataclass(frozen=True)
class WorkerConfig:
    """What every worker needs to decode and encode its batches.

    Attributes:
        make_engine: see `RayExecutor`.
        input_size: side of the network's input, in pixels.
        views: views of each photo, see `FeatureSpec`.
        max_pixels: photos with more pixels fail.
        dtype: number type of the stored vectors.
        cache: where the vectors are written.
        marker: a file in the cache's folder; a machine without it has another folder of the
            same name.
        cores: cores per worker; 0 with a GPU, see `ActorAllocation`.
        environment: variables to set before Keras is imported.
        packages: versions that every machine must have.
    """

    make_engine: Callable[[int | None], Engine]
    input_size: int
    views: str
    max_pixels: int
    dtype: str
    cache: ShardCache
    marker: Path
    cores: int
    environment: Mapping[str, str]
    packages: Mapping[str, str | None]

    def check_machine(self) -> None:
        """Check that this machine has the same packages and the shared folder.

        Raises:
            InputError: it does not.
        """
        installed = package_versions()
        for name, version in self.packages.items():
            if installed[name] != version:
                raise InputError(
                    f"{socket.gethostname()} has {name} {installed[name]}, but the machine that "
                    f"started the extraction has {version}: install requirements.lock on both"
                )
        if not self.marker.exists():
            raise _not_shared_error(self.marker.parent)

    def decode_batch(self, batch: str) -> "DecodedBatch":
        """Read and decode one of `json_batches`, with a thread per core.

        Raises:
            InputError: the photos' folder does not exist on this machine.
        """
        photos = [(sha, Path(path)) for sha, path in json.loads(batch)]
        for folder in {path.parent for _, path in photos}:
            if not folder.is_dir():
                raise _not_shared_error(folder)

        def decode(photo: tuple[str, Path]) -> Pixels | PhotoError:
            sha, path = photo
            file = PhotoFile(path)
            return read_and_decode(sha, file, self.input_size, self.max_pixels, self.views)

        with ThreadPoolExecutor(self.cores or 1, thread_name_prefix="decode") as pool:
            results = list(pool.map(decode, photos))
        decoded: dict[str, Pixels] = {}
        failed: dict[str, str] = {}
        for (sha, _), result in zip(photos, results, strict=True):
            if isinstance(result, PhotoError):
                failed[sha] = str(result)
            else:
                decoded[sha] = result
        no_pixels = np.zeros((0, self.input_size, self.input_size, 3), np.uint8)
        return DecodedBatch(
            keys=list(decoded),
            failed=failed,
            pixels=np.concatenate([no_pixels, *decoded.values()]),
        )


@dataclass(frozen=True)
class DecodedBatch:
    """The pixels of a batch of photos.

    Attributes:
        keys: sha256 of the photos that were decoded.
        failed: sha256 to the reason, for the other photos.
        pixels: (n * V, S, S, 3) RGB, in the order of `keys`, with the V views of each photo one
            after another.
    """

    keys: list[str]
    failed: dict[str, str]
    pixels: Pixels


def decode_row(row: Mapping[str, Any], config: WorkerConfig) -> dict[str, Any]:
    """Decode a batch for workers with GPUs, on any core of the cluster.

    Args:
        row: "batch", one of `json_batches`.
        config: see `WorkerConfig`.

    Returns:
        The row, with the three keys that `EncoderActor` reads: "pixels", "decoded" (JSON of
        the batch's keys and failures) and "error" (an `InputError`'s message, else empty).
    """
    try:
        config.check_machine()
        with _counted_attempt(row["batch"], config.marker):
            decoded = config.decode_batch(row["batch"])
    except InputError as error:
        return {**row, "decoded": "", "error": str(error), "pixels": np.zeros(0, np.uint8)}
    keys_and_failed = json.dumps([decoded.keys, decoded.failed])
    return {**row, "decoded": keys_and_failed, "error": "", "pixels": decoded.pixels}


class EncoderActor:
    """A worker of the cluster: an encoder in its own process, which Ray Data calls per batch."""

    def __init__(self, config: WorkerConfig) -> None:
        """Load nothing yet: Ray reports an error in here without its message."""
        os.environ.update(config.environment)
        self._config = config
        self._name = secrets.token_hex(8)
        self._engine: Engine | None = None
        self._ready_since = 0.0

    def __call__(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Encode a batch and write its vectors to the shard cache.

        Args:
            row: "batch", one of `json_batches`; or the output of `decode_row`.

        Returns:
            "result", as JSON: the statistics, or the error, that `ray._collect_stats` reads.
        """
        try:
            result = self._encode_row(row)
        except InputError as error:
            result = {"input_error": str(error)}
        except OSError as error:
            result = {"os_error": [error.errno, error.strerror, str(error.filename)]}
        return {"result": json.dumps(result)}

    def _encode_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        if row.get("error"):
            raise InputError(row["error"])
        engine = self._load_engine()
        with _counted_attempt(row["batch"], self._config.marker) as deaths:
            if "decoded" in row:
                keys, failed = json.loads(row["decoded"])
                batch = DecodedBatch(keys, failed, row["pixels"])
            else:
                batch = self._config.decode_batch(row["batch"])
            not_stored = self._encode_and_store(batch, engine) if batch.keys else {}
        return {
            "photos": len(batch.keys) + len(batch.failed),
            "passes": int(bool(batch.keys)),
            "failed": batch.failed | not_stored,
            "deaths": deaths,
            "worker": self._name,
            "busy_seconds": engine.busy_seconds(),
            "seconds": time.monotonic() - self._ready_since,
        }

    def _encode_and_store(self, batch: DecodedBatch, engine: Engine) -> dict[str, str]:
        vectors = engine.encode(batch.pixels)
        return store_batch(self._config.cache, batch.keys, vectors, self._config.dtype)

    def _load_engine(self) -> Engine:
        if self._engine is None:
            self._config.check_machine()
            self._engine = self._config.make_engine(self._config.cores or None)
            self._ready_since = time.monotonic()
        return self._engine


def _not_shared_error(folder: Path) -> InputError:
    return InputError(
        f"{socket.gethostname()} does not share {folder}: all machines of the cluster need the "
        "project, the photos and runtime.cache under the same paths"
    )


@contextmanager
def _counted_attempt(batch: str, marker: Path) -> Iterator[int]:
    """Count the attempts at a batch in a file next to `marker`; yield how many workers died on it.

    Raises:
        InputError: too many workers died.
    """
    photos = json.loads(batch)
    sha, path = photos[0]
    attempts = marker.with_name(f"{marker.name}-{sha}")
    with attempts.open("ab") as file:
        file.write(b".")
    deaths = attempts.stat().st_size - 1
    if deaths == _MAX_DEATHS:
        raise InputError(
            f"{deaths} workers died on the batch of {len(photos)} photos that starts with {path}: "
            "remove the photo that kills them or, if memory is short, lower runtime.batch_size "
            "(finished work is kept)"
        )
    yield deaths
    attempts.unlink()
