"""Workers: what runs on each machine of a cluster, whoever hands them the batches."""

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
from pipeline.features.encoders.engines import Engine, Pixels
from pipeline.features.executors.local import keep_vectors, load_photo
from pipeline.features.photos import PhotoError
from pipeline.features.shard_cache import ShardFolder

# How often workers may die at a batch. Ray starts new ones for ever, which a photo that
# kills its decoder, or a machine without the memory for a batch, would kill for ever.
_TRIES = 4
# What decides a vector's last bits. Were it not the same on all machines, a vector would
# depend on which of them made it.
_PACKAGES = ("keras", "tensorflow", "jax", "torch", "openvino", "numpy", "pillow")


def batches(photos: Mapping[str, Path], size: int) -> list[str]:
    """Group photos by `size`: JSON, which also carries names that are no Unicode."""
    pairs = [(sha, str(path.absolute())) for sha, path in photos.items()]
    return [json.dumps(pairs[first : first + size]) for first in range(0, len(pairs), size)]


def package_versions() -> dict[str, str | None]:
    """Return the versions of what decides a vector's last bits; None is not installed."""
    versions: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


@dataclass(frozen=True)
class Work:
    """What every worker has to know.

    Attributes:
        make_engine: see `RayExecutor`.
        input_size: of photos, pixels a side.
        views: of photos, see `FeatureSpec`.
        max_pixels: photos of more are refused.
        dtype: of vectors, as stored.
        shards: where they go.
        mark: a file that tells the folder of shards from another machine's of the same name.
        cores: for a worker; 0 beside a GPU, see `ActorPlan`.
        environment: variables that have to be set before Keras is imported.
        packages: versions that decide a vector's last bits.
    """

    make_engine: Callable[[int | None], Engine]
    input_size: int
    views: str
    max_pixels: int
    dtype: str
    shards: ShardFolder
    mark: Path
    cores: int
    environment: Mapping[str, str]
    packages: Mapping[str, str | None]

    def check_machine(self) -> None:
        """Refuse a machine that has other packages or another folder.

        Raises:
            InputError: it has.
        """
        here = package_versions()
        for name, version in self.packages.items():
            if here[name] != version:
                raise InputError(
                    f"{socket.gethostname()} has {name} {here[name]}, not {version} as the "
                    "machine that started this: install requirements.lock on both"
                )
        if not self.mark.exists():
            raise _not_shared(self.mark.parent)

    def load(self, batch: str) -> "Loaded":
        """Read and decode a batch, one of `batches`, with a thread for each core.

        Raises:
            InputError: the photos' folder is not there.
        """
        photos = [(sha, Path(path)) for sha, path in json.loads(batch)]
        for folder in {path.parent for _, path in photos}:
            if not folder.is_dir():
                raise _not_shared(folder)

        def load(photo: tuple[str, Path]) -> Pixels | PhotoError:
            return load_photo(*photo, self.input_size, self.max_pixels, self.views)

        with ThreadPoolExecutor(self.cores or 1, thread_name_prefix="decode") as pool:
            loaded = list(zip(photos, pool.map(load, photos), strict=True))
        good = [(sha, found) for (sha, _), found in loaded if not isinstance(found, PhotoError)]
        nothing = np.zeros((0, self.input_size, self.input_size, 3), np.uint8)
        return Loaded(
            keys=[sha for sha, _ in good],
            failed={sha: str(found) for (sha, _), found in loaded if isinstance(found, PhotoError)},
            pixels=np.concatenate([nothing, *(found for _, found in good)]),
        )


@dataclass(frozen=True)
class Loaded:
    """A batch, read and decoded.

    Attributes:
        keys: sha256 of the photos that could be.
        failed: sha256 to the reason of the others.
        pixels: of `keys`, (n * V, S, S, 3) RGB, each photo's views one after another.
    """

    keys: list[str]
    failed: dict[str, str]
    pixels: Pixels


def load_row(row: Mapping[str, Any], work: Work) -> dict[str, Any]:
    """Decode beside the GPUs' workers, on any core of the cluster.

    Args:
        row: "batch", one of `batches`.
        work: what there is to know.

    Returns:
        The row with "loaded" or with "error", what `Worker` has to know; and "pixels".
    """
    try:
        work.check_machine()
        with _counted(row["batch"], work.mark):
            loaded = work.load(row["batch"])
    except InputError as error:
        return {**row, "loaded": "", "error": str(error), "pixels": np.zeros(0, np.uint8)}
    facts = json.dumps([loaded.keys, loaded.failed])
    return {**row, "loaded": facts, "error": "", "pixels": loaded.pixels}


class Worker:
    """An encoder in a process of the cluster; Ray Data calls it with a batch at a time."""

    def __init__(self, work: Work) -> None:
        """Load nothing yet: what fails here, Ray tells without the reason."""
        os.environ.update(work.environment)
        self._work = work
        self._name = secrets.token_hex(8)
        self._engine: Engine | None = None
        self._since = 0.0

    def __call__(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Encode a batch and keep it.

        Args:
            row: "batch", one of `batches`; or what `load_row` makes of it.

        Returns:
            "answer", as JSON: what `_gather` takes, or the error that it raises.
        """
        try:
            answer = self._answer(row)
        except InputError as error:
            answer = {"input_error": str(error)}
        except OSError as error:
            answer = {"os_error": [error.errno, error.strerror, str(error.filename)]}
        return {"answer": json.dumps(answer)}

    def _answer(self, row: Mapping[str, Any]) -> dict[str, Any]:
        if row.get("error"):
            raise InputError(row["error"])
        engine = self._ready()
        with _counted(row["batch"], self._work.mark) as died:
            if "loaded" in row:
                keys, failed = json.loads(row["loaded"])
                loaded = Loaded(keys, failed, row["pixels"])
            else:
                loaded = self._work.load(row["batch"])
            blank = self._keep(loaded, engine) if loaded.keys else {}
        return {
            "photos": len(loaded.keys) + len(loaded.failed),
            "passes": int(bool(loaded.keys)),
            "failed": loaded.failed | blank,
            "died": died,
            "worker": self._name,
            "busy": engine.busy(),
            "age": time.monotonic() - self._since,
        }

    def _keep(self, loaded: Loaded, engine: Engine) -> dict[str, str]:
        vectors = engine.encode(loaded.pixels)
        return keep_vectors(self._work.shards, loaded.keys, vectors, self._work.dtype)

    def _ready(self) -> Engine:
        if self._engine is None:
            self._work.check_machine()
            self._engine = self._work.make_engine(self._work.cores or None)
            self._since = time.monotonic()
        return self._engine


def _not_shared(folder: Path) -> InputError:
    return InputError(
        f"{socket.gethostname()} does not share {folder}: all machines of the cluster need the "
        "project, the photos and runtime.cache under the same paths"
    )


@contextmanager
def _counted(batch: str, mark: Path) -> Iterator[int]:
    """Count, beside `mark`, how often a batch was begun and, its worker dying, not ended.

    Raises:
        InputError: too often.
    """
    photos = json.loads(batch)
    sha, path = photos[0]
    tries = mark.with_name(f"{mark.name}-{sha}")
    with tries.open("ab") as file:
        file.write(b".")
    died = tries.stat().st_size - 1
    if died == _TRIES:
        raise InputError(
            f"{died} workers died at the {len(photos)} photos from {path} on: take out the one "
            "that kills them, or, where memory is short, set runtime.batch_size lower; what was "
            "computed is kept"
        )
    yield died
    tries.unlink()
