"""Execution: photos through the encoder on this machine, a shard for every batch.

Photos are read and decoded beside the encoder and kept while it is at the next batch.
"""

import hashlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.features.encoders.engines import Engine, PendingBatch, Pixels
from pipeline.features.feature_spec import FeatureSpec
from pipeline.features.photos import PhotoError, decode, read_photo
from pipeline.features.shard_cache import ShardFolder
from pipeline.progress import Progress

Task = TypeVar("Task", bound=tuple[Any, ...])
Result = TypeVar("Result")

# Passes begun and not yet kept: one is under way while the one before it is written.
# More would be lost when killed.
_UNDER_WAY = 2
# Below this share of time without work the encoder counts as the slower side.
_HARDLY = 0.1


@dataclass
class EncodeStats:
    """What became of photos that had no vector.

    Attributes:
        failed: sha256 to the reason of every photo that still has none.
        computed: photos that have one now.
        passes: batches that the encoder ran.
        seconds: from the encoder being ready to the last vector kept.
        waiting: seconds of these in which the encoder had nothing to do.
    """

    failed: dict[str, str] = field(default_factory=dict)
    computed: int = 0
    passes: int = 0
    seconds: float = 0.0
    waiting: float = 0.0

    def merge(self, later: "EncodeStats") -> "EncodeStats":
        """Return what became of the photos of both."""
        return EncodeStats(
            self.failed | later.failed,
            self.computed + later.computed,
            self.passes + later.passes,
            self.seconds + later.seconds,
            self.waiting + later.waiting,
        )


@dataclass(frozen=True)
class LocalExecutor:
    """Encodes photos with the cores, or the accelerator, of this machine.

    Attributes:
        make_engine: builds the inference engine.
        workers: threads that read and decode (processes beside an accelerator, which
            outruns what threads of one process decode); None is one a core.
        progress_seconds: see `Progress`.
    """

    make_engine: Callable[[], Engine]
    workers: int | None
    progress_seconds: float

    def encode(
        self,
        photos: Mapping[str, Path],
        encoding: FeatureSpec,
        max_pixels: int,
        shards: ShardFolder,
        note: str,
    ) -> EncodeStats:
        """Encode `photos` (sha256 to file) into `shards`; show `note` beside the progress."""
        outcome = EncodeStats()
        engine = self.make_engine()
        start, busy_before = time.monotonic(), engine.busy()

        def waiting() -> float:
            return time.monotonic() - start - (engine.busy() - busy_before)

        def keep() -> None:
            keys, begun = under_way[0]
            failed = keep_vectors(shards, keys, begun.result(), encoding.dtype)
            under_way.popleft()
            outcome.failed |= failed
            outcome.computed += len(keys) - len(failed)
            done = outcome.computed + len(outcome.failed)
            said = f"{note}, {len(outcome.failed)} more failed" if outcome.failed else note
            slower = slower_side(waiting(), time.monotonic() - start)
            progress.advance(done - progress.done, f"{said}; {slower}")

        under_way: deque[tuple[list[str], PendingBatch]] = deque()
        size, views = encoding.input_size, encoding.views
        tasks = ((sha, path, size, max_pixels, views) for sha, path in photos.items())
        photos_a_pass = engine.batch_size // encoding.view_count
        pool = self._pool(accelerated=engine.accelerated)
        try:
            with Progress("extract", len(photos), "photos", self.progress_seconds) as progress:
                loaded = ahead(pool, load_photo, tasks, 2 * photos_a_pass)
                for batch in _batches(loaded, photos_a_pass, outcome.failed):
                    pixels = np.concatenate([pixels for _, pixels in batch])
                    under_way.append(([sha for sha, _ in batch], engine.start(pixels)))
                    if len(under_way) == _UNDER_WAY:
                        keep()
                while under_way:
                    keep()
        finally:
            # After Ctrl-C, or a failure, nobody waits for what is not begun.
            for _, begun in under_way:
                begun.cancel()
            pool.shutdown(cancel_futures=True)
        outcome.passes = engine.passes
        outcome.seconds, outcome.waiting = time.monotonic() - start, waiting()
        return outcome

    def _pool(self, *, accelerated: bool) -> Executor:
        workers = self.workers or cores()
        if accelerated:
            return ProcessPoolExecutor(
                workers,
                # A forked copy of a process that uses an accelerator hangs.
                multiprocessing.get_context("spawn"),
                initializer=_follow_parent,
            )
        return ThreadPoolExecutor(workers, thread_name_prefix="decode")


def _follow_parent() -> None:
    """Prepare a decoding process: its parent alone ends it, also by being killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches them all
    # Each keeps the pool's queue open for the others, so that none would see its end.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
    os._exit(1)


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_photo(sha: str, path: Path, size: int, max_pixels: int, views: str) -> Pixels | PhotoError:
    """Read and decode a photo, making sure that it is still the one of digest `sha`.

    Returns:
        (V, size, size, 3), see `decode`; or why there is none.
    """
    try:
        data = read_photo(path)
        if hashlib.sha256(data).hexdigest() != sha:
            return PhotoError("changed while it was being read")
        return decode(data, size, max_pixels, views)
    except PhotoError as error:
        return error


def keep_vectors(
    shards: ShardFolder, keys: list[str], vectors: npt.NDArray[np.float32], dtype: str
) -> dict[str, str]:
    """Keep a batch; return why some of it was not.

    Args:
        shards: where.
        keys: sha256 of n photos.
        vectors: (n * V, ...), those of each photo's V views one after another.
        dtype: to store them with.

    Raises:
        InputError: `dtype` cannot hold the numbers.
    """
    with np.errstate(over="ignore"):
        stored = vectors.astype(dtype)
    views = len(stored) // len(keys)
    if views > 1:
        stored = stored.reshape(len(keys), views, *stored.shape[1:])
    if not np.isfinite(stored).all():
        raise InputError(
            f"the encoder gives numbers that {dtype} cannot hold: "
            "set extract.dtype in params.yaml to float32, or take other encoder.weights"
        )
    seen: npt.NDArray[np.bool_] = np.any(stored.reshape(len(stored), -1), axis=1)
    if seen.any():
        shards.add([key for key, ok in zip(keys, seen, strict=True) if ok], stored[seen])
    blank = f"the encoder gives nothing but zeros for it, as {dtype} at least"
    return {key: blank for key, ok in zip(keys, seen, strict=True) if not ok}


def slower_side(waiting: float, seconds: float) -> str:
    """Say which side keeps the other waiting, from the seconds that the encoder waited."""
    share = waiting / seconds if seconds else 0.0
    if share < _HARDLY:
        return "the encoder is the slower side"
    return f"decoding is the slower side, the encoder waits {share:.0%} of the time"


def ahead(
    pool: Executor, work: Callable[..., Result], tasks: Iterable[Task], depth: int
) -> Iterator[tuple[Task, Result]]:
    """Do `work(*task)` for each task, in order, at most `depth` ahead of the consumer."""
    waiting: deque[tuple[Task, Future[Result]]] = deque()
    for task in tasks:
        waiting.append((task, pool.submit(work, *task)))
        if len(waiting) >= depth:
            first, future = waiting.popleft()
            yield first, future.result()
    while waiting:
        first, future = waiting.popleft()
        yield first, future.result()


def _batches(
    loaded: Iterator[tuple[tuple[str, Path, int, int, str], Pixels | PhotoError]],
    size: int,
    failed: dict[str, str],
) -> Iterator[list[tuple[str, Pixels]]]:
    """Group decoded photos by `size`; note the reasons of the others in `failed`."""
    batch: list[tuple[str, Pixels]] = []
    for (sha, *_), outcome in loaded:
        if isinstance(outcome, PhotoError):
            failed[sha] = str(outcome)
            continue
        batch.append((sha, outcome))
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
