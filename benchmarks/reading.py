"""Reading random training batches from a store, against NumPy's memory map of the same data."""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.harness import MeasuringProcess, Row, measure_interleaved, median_ratio
from benchmarks.limits import can_limit, limit_memory, remove_limits
from benchmarks.noise import write_noise
from pipeline.features.store import FeatureStore

_PHOTOS = 8_000
_SHAPES = {"pooled": (2048,), "grid": (100, 2048)}
_BATCH_SIZE = 64
_MEMORY = 1 << 30  # bytes, for the grid store of 3.3 GB

ReadBatch = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]
MeasureRate = Callable[[int], float]


def run(_: Path) -> list[Row]:
    """Write both stores, each also as .npy, and read random batches from all of them."""
    rows = []
    for name, shape in _SHAPES.items():
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            write_noise(Path(folder), _PHOTOS, shape)
            limit = _MEMORY if name == "grid" else None
            batches = 20 if name == "grid" else 200
            store = stack.enter_context(MeasuringProcess(_read_store, Path(folder), limit))
            memory_map = stack.enter_context(MeasuringProcess(_read_map, Path(folder), limit))
            values = measure_interleaved(
                {
                    f"{name}, store, photos/s": partial(store.run, batches),
                    f"{name}, memory map, photos/s": partial(memory_map.run, batches),
                }
            )
        remove_limits()
        store_rates, map_rates = values.values()
        memory = f" within {_MEMORY >> 20} MiB" if limit and can_limit() else ""
        rows.append(
            Row(
                f"reading batches, {name}{memory}",
                f"{statistics.median(store_rates):.0f} photos/s, "
                f"x {median_ratio(store_rates, map_rates):.2f} the rate of NumPy's memory map",
                "x 0.5",
            )
        )
    return rows


def _read_store(folder: Path, limit: int | None) -> MeasureRate:
    store = FeatureStore.open(folder / "features.h5")
    return _make_rate(lambda drawn: store.read(store.image_ids[i] for i in drawn), 1, limit)


def _read_map(folder: Path, limit: int | None) -> MeasureRate:
    array = np.load(folder / "features.npy", mmap_mode="r")
    return _make_rate(lambda drawn: array[drawn].astype(np.float32), 2, limit)


def _make_rate(read: ReadBatch, seed: int, limit: int | None) -> MeasureRate:
    limit_memory(limit)
    random = np.random.default_rng(seed)

    def measure_rate(batches: int) -> float:
        start = time.perf_counter()
        for _ in range(batches):
            read(random.integers(0, _PHOTOS, _BATCH_SIZE))
        return batches * _BATCH_SIZE / (time.perf_counter() - start)

    measure_rate(2)
    return measure_rate
