"""Random training batches from a store, against NumPy's memory map of the same numbers."""

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.harness import Row, Worker, interleaved, ratio
from pipeline.features.encoding import Encoding
from pipeline.features.store import FeatureStore, write_store

_PHOTOS = 8_000
_SHAPES = {"pooled": (2048,), "grid": (100, 2048)}
_BATCH = 64
_MEMORY = 1 << 30  # for the grid store of 3.3 GB
_GROUP = "caption-benchmark-"

Read = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]


def rows(_: Path) -> list[Row]:
    """Write both stores, and the same rows as .npy; read each in batches drawn at random."""
    found = []
    for name, shape in _SHAPES.items():
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            _write(Path(folder), shape)
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
        _remove_groups()
        store, plain = rates.values()
        memory = f" within {_MEMORY >> 20} MiB" if limit and _group() else ""
        found.append(
            Row(
                f"reading batches, {name}{memory}",
                f"{statistics.median(store):.0f} photos/s, x {ratio(store, plain):.2f} of NumPy's "
                "memory map",
                "x 0.5",
            )
        )
    return found


def _write(folder: Path, shape: tuple[int, ...]) -> None:
    encoding = Encoding("Noise", 299, "0", "none", "0", "drawn", "whole", "average", "float16")
    photos = {f"{number:05}.jpg": f"{number:064x}" for number in range(_PHOTOS)}
    random = np.random.default_rng(0)
    whole = np.lib.format.open_memmap(folder / "features.npy", "w+", np.float16, (_PHOTOS, *shape))

    def parts() -> Iterator[tuple[list[int], npt.NDArray[np.float16]]]:
        for start in range(0, _PHOTOS, 100):
            part = random.random((100, *shape), dtype=np.float32).astype(np.float16)
            whole[start : start + 100] = part
            yield list(range(start, start + 100)), part

    write_store(folder / "features.h5", encoding, photos, {}, parts())
    whole.flush()


def _store(folder: Path, limit: int | None) -> Callable[[int], float]:
    store = FeatureStore.open(folder / "features.h5")
    return _timed(lambda drawn: store.read(store.image_ids[i] for i in drawn), 1, limit)


def _map(folder: Path, limit: int | None) -> Callable[[int], float]:
    whole = np.load(folder / "features.npy", mmap_mode="r")
    return _timed(lambda drawn: whole[drawn].astype(np.float32), 2, limit)


def _timed(read: Read, seed: int, limit: int | None) -> Callable[[int], float]:
    _limit_memory(limit)
    random = np.random.default_rng(seed)

    def run(batches: int) -> float:
        start = time.perf_counter()
        for _ in range(batches):
            read(random.integers(0, _PHOTOS, _BATCH))
        return batches * _BATCH / (time.perf_counter() - start)

    run(2)
    return run


def _limit_memory(limit: int | None) -> None:
    """Put this process, page cache included, under a limit, where the system lets it."""
    parent = _group()
    if limit is None or parent is None:
        return
    group = parent / f"{_GROUP}{os.getpid()}"
    group.mkdir()
    name = "memory.max" if (group / "memory.max").exists() else "memory.limit_in_bytes"
    (group / name).write_text(str(limit))
    (group / "cgroup.procs").write_text(str(os.getpid()))


def _remove_groups() -> None:
    """Remove the limits of processes that have ended."""
    parent = _group()
    for group in parent.glob(f"{_GROUP}*") if parent else ():
        group.rmdir()


def _group() -> Path | None:
    """Return the folder of control groups in which this process may limit memory."""
    for folder in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
        limits = ("memory.limit_in_bytes", "cgroup.subtree_control")
        if any((folder / name).exists() for name in limits) and os.access(folder, os.W_OK):
            return folder
    return None
