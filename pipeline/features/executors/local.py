"""Local executor: encodes photos on this machine and writes a shard for every batch.

Photos are read and decoded in parallel with the encoder, and a batch's vectors are written
while the encoder is at the next batch.
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
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.features.decoding.photos import PhotoError, PhotoFile, decode_photo, stop_waiting
from pipeline.features.encoders.engines import Engine, PendingBatch, Pixels
from pipeline.features.feature_spec import FeatureSpec
from pipeline.features.shard_cache import ShardCache
from pipeline.progress import Progress

Task = TypeVar("Task", bound=tuple[Any, ...])
Result = TypeVar("Result")
_PendingPasses = deque[tuple[list[str], PendingBatch]]

# Maximum number of passes that are started and not yet written to the cache: one runs while the
# previous one is written. With more, a kill would lose more work.
_MAX_PENDING = 2
# If the encoder is idle for less than this share of the time, decoding keeps up with it.
_NEGLIGIBLE_IDLE_SHARE = 0.1


@dataclass
class EncodeStats:
    """Counts and times of an executor's run.

    Attributes:
        failed: sha256 to the reason, for every photo that could not be encoded.
        computed: number of photos that were encoded.
        passes: number of batches that the encoder ran.
        seconds: wall-clock time from the encoder being ready to the last shard written.
        idle_seconds: the part of `seconds` in which the encoder had nothing to do.
    """

    failed: dict[str, str] = field(default_factory=dict)
    computed: int = 0
    passes: int = 0
    seconds: float = 0.0
    idle_seconds: float = 0.0

    def merge(self, other: "EncodeStats") -> "EncodeStats":
        """Return the sums of both runs, and the failures of both."""
        return EncodeStats(
            self.failed | other.failed,
            self.computed + other.computed,
            self.passes + other.passes,
            self.seconds + other.seconds,
            self.idle_seconds + other.idle_seconds,
        )


@dataclass(frozen=True)
class LocalExecutor:
    """Encodes photos on the cores, or the accelerator, of this machine.

    Attributes:
        make_engine: builds the inference engine.
        workers: number of threads that read and decode photos; None uses one per core. With an
            accelerator they are processes, because threads of one process are too slow for it.
        progress_seconds: see `Progress`.
    """

    make_engine: Callable[[], Engine]
    workers: int | None
    progress_seconds: float

    def encode(
        self,
        photos: Mapping[str, PhotoFile],
        feature_spec: FeatureSpec,
        max_pixels: int,
        cache: ShardCache,
        status: str,
    ) -> EncodeStats:
        """Encode photos into the shard cache; see `extractor.Executor.encode`.

        Bytes that are still in memory are not read again, unless photos are decoded in processes.
        """
        stats = EncodeStats()
        engine = self.make_engine()
        start, busy_at_start = time.monotonic(), engine.busy_seconds()

        def idle_seconds() -> float:
            return time.monotonic() - start - (engine.busy_seconds() - busy_at_start)

        def store_oldest() -> None:
            keys, batch = pending[0]
            failed = store_batch(cache, keys, batch.result(), feature_spec.dtype)
            pending.popleft()
            stats.failed |= failed
            stats.computed += len(keys) - len(failed)
            done = stats.computed + len(stats.failed)
            failures = f", {len(stats.failed)} more failed" if stats.failed else ""
            bottleneck = describe_bottleneck(idle_seconds(), time.monotonic() - start)
            progress.advance(done - progress.done, f"{status}{failures}; {bottleneck}")

        pending: _PendingPasses = deque()
        stop_waiting.clear()
        pool = self._decoding_pool(photos, accelerated=engine.accelerated)
        try:
            with Progress("extract", len(photos), "photos", self.progress_seconds) as progress:
                batches = _decoded_batches(
                    pool, photos, feature_spec, max_pixels, engine.batch_size, stats.failed
                )
                _run_passes(batches, engine, pending, store_oldest)
        finally:
            # After Ctrl-C or a failure, do not wait for work that has not started.
            for _, batch in pending:
                batch.cancel()
            stop_waiting.set()
            pool.shutdown(cancel_futures=True)
        stats.passes = engine.passes
        stats.seconds, stats.idle_seconds = time.monotonic() - start, idle_seconds()
        return stats

    def _decoding_pool(self, photos: Mapping[str, PhotoFile], *, accelerated: bool) -> Executor:
        workers = self.workers or available_cores()
        if not accelerated:
            return ThreadPoolExecutor(workers, thread_name_prefix="decode")
        # Processes read the files themselves: sending them the bytes would copy these twice.
        for photo in photos.values():
            photo.release()
        return ProcessPoolExecutor(
            workers,
            # A forked copy of a process that uses an accelerator hangs.
            multiprocessing.get_context("spawn"),
            initializer=_follow_parent,
        )


def _follow_parent() -> None:
    """Prepare a decoding process to end with its parent, even if the parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of the group
    # Every process keeps the pool's queue open for the others, so none would see it close.
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
    os._exit(1)


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_and_decode(
    sha: str, photo: PhotoFile, size: int, max_pixels: int, views: str
) -> Pixels | PhotoError:
    """Read and decode a photo, after checking that its bytes still have the digest `sha`.

    Returns:
        The pixels, (V, size, size, 3), see `decode_photo`; or why there are none.
    """
    try:
        data = photo.take()
        if hashlib.sha256(data).hexdigest() != sha:
            return PhotoError("changed while it was being read")
        return decode_photo(data, size, max_pixels, views)
    except PhotoError as error:
        return error


def store_batch(
    cache: ShardCache, keys: list[str], vectors: npt.NDArray[np.float32], dtype: str
) -> dict[str, str]:
    """Write a batch to the shard cache, except for photos whose vectors are all zeros.

    Args:
        cache: where to write.
        keys: sha256 of n photos.
        vectors: (n * V, ...), the V views of each photo one after another.
        dtype: number type of the stored vectors.

    Returns:
        sha256 to the reason, for each photo that was not stored.

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
            f"the encoder's output has numbers that {dtype} cannot hold: "
            "set extract.dtype in params.yaml to float32, or use other encoder.weights"
        )
    nonzero: npt.NDArray[np.bool_] = np.any(stored.reshape(len(stored), -1), axis=1)
    if nonzero.any():
        cache.add([key for key, ok in zip(keys, nonzero, strict=True) if ok], stored[nonzero])
    reason = f"the encoder's output for it is all zeros, at least as {dtype}"
    return {key: reason for key, ok in zip(keys, nonzero, strict=True) if not ok}


def describe_bottleneck(idle_seconds: float, seconds: float) -> str:
    """Describe whether encoding or decoding is slower, from the encoder's idle time."""
    share = idle_seconds / seconds if seconds else 0.0
    if share < _NEGLIGIBLE_IDLE_SHARE:
        return "the encoder is the slower side"
    return f"decoding is the slower side, the encoder waits {share:.0%} of the time"


def prefetch(
    pool: Executor, function: Callable[..., Result], tasks: Iterable[Task], depth: int
) -> Iterator[tuple[Task, Result]]:
    """Yield each task with `function(*task)`, in order, computing at most `depth` tasks ahead."""
    pending: deque[tuple[Task, Future[Result]]] = deque()
    for task in tasks:
        pending.append((task, pool.submit(function, *task)))
        if len(pending) >= depth:
            oldest, future = pending.popleft()
            yield oldest, future.result()
    while pending:
        oldest, future = pending.popleft()
        yield oldest, future.result()


def _run_passes(
    batches: Iterable[tuple[list[str], Pixels]],
    engine: Engine,
    pending: _PendingPasses,
    store_oldest: Callable[[], None],
) -> None:
    """Start a pass for each batch and store the passes, at most `_MAX_PENDING` later."""
    try:
        for keys, pixels in batches:
            pending.append((keys, engine.start(pixels)))
            if len(pending) == _MAX_PENDING:
                store_oldest()
    except InputError:  # a photo could not be read: what is under way is kept
        while pending:
            store_oldest()
        raise
    while pending:
        store_oldest()


def _decoded_batches(
    pool: Executor,
    photos: Mapping[str, PhotoFile],
    feature_spec: FeatureSpec,
    max_pixels: int,
    batch_size: int,
    failed: dict[str, str],
) -> Iterator[tuple[list[str], Pixels]]:
    """Decode photos in the pool; yield batches of keys and the pixels of all their views.

    Args:
        pool: where photos are decoded.
        photos: sha256 to photo.
        feature_spec: how to decode them.
        max_pixels: photos with more pixels fail.
        batch_size: images per batch at most, each view being one.
        failed: receives the reason, by sha256, of each photo that cannot be decoded.
    """
    size, views = feature_spec.input_size, feature_spec.views
    photos_per_batch = batch_size // feature_spec.view_count
    tasks = ((sha, photo, size, max_pixels, views) for sha, photo in photos.items())
    keys: list[str] = []
    images: list[Pixels] = []
    for (sha, *_), result in prefetch(pool, read_and_decode, tasks, 2 * photos_per_batch):
        if isinstance(result, PhotoError):
            failed[sha] = str(result)
            continue
        keys.append(sha)
        images.append(result)
        if len(keys) == photos_per_batch:
            yield keys, np.concatenate(images)
            keys, images = [], []
    if keys:
        yield keys, np.concatenate(images)
