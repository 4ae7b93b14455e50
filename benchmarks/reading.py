"""Random training batches from a store, against NumPy's memory map of the same numbers."""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.harness import Row, Worker, interleaved, ratio
from benchmarks.limits import can_limit, limit_memory, remove_limits
from pipeline.features.feature_spec import FeatureSpec
from pipeline.features.store import FeatureStore, write_store

_PHOTOS = 8_000
_SHAPES = {"pooled": (2048,), "grid": (100, 2048)}
_BATCH = 64
_MEMORY = 1 << 30  # for the grid store of 3.3 GB

Read = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]


def rows(_: Path) -> list[Row]:
    """Write both stores, and the same rows as .npy; read each in batches drawn at random."""
    found = []
    for name, shape in _SHAPES.items():
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            write_noise(Path(folder), _PHOTOS, shape)
            limit = _MEMORY if name == "grid" else None
            batches = 20 if name == "grid" else 200
            ours = stack.enter_context(Worker(_store, Path(folder), limit))
            theirs = stack.enter_context(Worker(_map, Path(folder), limit))
            rates = interleaved(
                {
                    f"{name}, store, photos/s": partial(ours.run, batches),
                    f"{name}, memory map, photos/s": partial(theirs.run, batches),
                }
            )
        remove_limits()
        store, plain = rates.values()
        memory = f" within {_MEMORY >> 20} MiB" if limit and can_limit() else ""
        found.append(
            Row(
                f"reading batches, {name}{memory}",
                f"{statistics.median(store):.0f} photos/s, x {ratio(store, plain):.2f} of NumPy's "
                "memory map",
                "x 0.5",
            )
        )
    return found


def write_noise(folder: Path, count: int, shape: tuple[int, ...]) -> None:
    """Write features.h5 and features.npy with the same vectors of `count` photos."""
    feature_spec = FeatureSpec(
        "Noise", 299, "0", "none", "0", "drawn", "whole", "average", 1, "float16"
    )
    photos = {f"{number:05}.jpg": f"{number:064x}" for number in range(count)}
    random = np.random.default_rng(0)
    whole = np.lib.format.open_memmap(folder / "features.npy", "w+", np.float16, (count, *shape))

    def parts() -> Iterator[tuple[list[int], npt.NDArray[np.float16]]]:
        for start in range(0, count, 100):
            part = random.random((100, *shape), dtype=np.float32).astype(np.float16)
            whole[start : start + 100] = part
            yield list(range(start, start + 100)), part

    write_store(folder / "features.h5", feature_spec, photos, {}, parts())
    whole.flush()


def _store(folder: Path, limit: int | None) -> Callable[[int], float]:
    store = FeatureStore.open(folder / "features.h5")
    return _timed(lambda drawn: store.read(store.image_ids[i] for i in drawn), 1, limit)


def _map(folder: Path, limit: int | None) -> Callable[[int], float]:
    whole = np.load(folder / "features.npy", mmap_mode="r")
    return _timed(lambda drawn: whole[drawn].astype(np.float32), 2, limit)


def _timed(read: Read, seed: int, limit: int | None) -> Callable[[int], float]:
    limit_memory(limit)
    random = np.random.default_rng(seed)

    def run(batches: int) -> float:
        start = time.perf_counter()
        for _ in range(batches):
            read(random.integers(0, _PHOTOS, _BATCH))
        return batches * _BATCH / (time.perf_counter() - start)

    run(2)
    return run
