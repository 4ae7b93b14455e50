import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.features.decoding.photos import PhotoError, PhotoFile, decode_photo
from pipeline.features.encoders.engines import Pixels, Vectors
from pipeline.features.executors import local
from pipeline.features.executors.local import (
    available_cores,
    describe_bottleneck,
    prefetch,
    read_and_decode,
    store_batch,
)
from pipeline.features.shard_cache import ShardCache, read_vectors
from pipeline.files import sha256_file
from tests.conftest import FEATURE_SPEC, encoded, make_photo
from tests.support.extraction import (
    BATCH,
    MAX_PIXELS,
    MeanColourEngine,
    PausedEngine,
    Workspace,
    add_bad_photos,
)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.drawn(tmp_path, 10)


# Decoding, encoding and writing in parallel.


def test_every_batch_is_written_as_a_shard(workspace: Workspace) -> None:
    stats = workspace.encode(workspace.executor())
    assert (stats.computed, stats.passes, stats.failed) == (10, 3, {})
    assert 0 <= stats.idle_seconds <= stats.seconds
    shards = [shard for shard, _ in workspace.shards().index().values()]
    assert sorted(shards.count(shard) for shard in set(shards)) == [2, BATCH, BATCH]


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_the_number_of_workers_does_not_change_the_store(
    workspace: Workspace, tmp_path: Path, workers: int
) -> None:
    add_bad_photos(workspace)
    workspace.extract(workers=workers)
    first = workspace.store.read_bytes()
    workspace.extract(workers=2, cache=tmp_path / "other")
    assert workspace.store.read_bytes() == first


def test_decoding_in_processes_for_an_accelerator_gives_the_same_store_as_in_threads(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = add_bad_photos(workspace)
    workspace.extract()
    with_threads = workspace.store.read_bytes()

    def no_threads(*_: Any) -> None:
        raise AssertionError("photos are decoded in this process")

    monkeypatch.setattr(local, "decode_photo", no_threads)
    engine = MeanColourEngine(accelerated=True)
    result = workspace.extract(
        engine, executor=workspace.executor(engine), cache=tmp_path / "other"
    )
    assert set(result.failed) == set(reasons)
    assert workspace.store.read_bytes() == with_threads


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_at_most_two_batches_are_pending(workspace: Workspace) -> None:
    workspace.draw(*range(10, 18))
    engine = PausedEngine()
    most_pending = 0
    add = ShardCache.add

    def count_and_add(cache: ShardCache, *arguments: Any) -> None:
        nonlocal most_pending
        written = len(list(cache.folder.glob("*.npz")))
        most_pending = max(most_pending, len(engine.started) - written)
        add(cache, *arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ShardCache, "add", count_and_add)
        running = threading.Thread(target=workspace.encode, args=(workspace.executor(engine),))
        running.start()
        try:
            wait_for(lambda: len(engine.started) == 2)
            assert workspace.cached_count() == 0
            for done in range(1, 4):
                engine.permits.release()
                wait_for(lambda done=done: len(engine.started) == 2 + done)  # type: ignore[misc]
                assert workspace.cached_count() == done * BATCH
        finally:
            engine.permits.release(10)
            running.join()
    assert engine.started == [BATCH] * 4 + [2]
    assert most_pending == 2
    assert workspace.cached_count() == 18


class ImmediateExecutor(Executor):
    """Runs a job in `submit`."""

    def __init__(self) -> None:
        self.submitted = 0

    def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        self.submitted += 1
        future: Future[Any] = Future()
        future.set_result(function(*arguments, **options))
        return future


@pytest.mark.parametrize("depth", [1, 3, 100])
def test_prefetch_keeps_the_order_and_runs_at_most_depth_tasks_ahead(depth: int) -> None:
    pool = ImmediateExecutor()
    tasks = [(number, 2) for number in range(10)]
    for consumed, (task, result) in enumerate(prefetch(pool, pow, iter(tasks), depth)):
        assert task == tasks[consumed]
        assert result == consumed**2
        assert pool.submitted == min(consumed + depth, 10)
    assert consumed == 9


def test_the_default_is_a_worker_per_core(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
    pools: list[int] = []

    def pool(workers: int, **_: Any) -> Executor:
        pools.append(workers)
        return ImmediateExecutor()

    monkeypatch.setattr(local, "ThreadPoolExecutor", pool)
    assert workspace.encode(replace(workspace.executor(), workers=None)).computed == 10
    assert workspace.encode(replace(workspace.executor(), workers=7)).computed == 10
    assert pools == [available_cores(), 7]


# What is stored.


def test_a_batch_is_stored_except_for_photos_whose_vectors_are_zero(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, "f" * 64)
    keys = [f"{number:064x}" for number in range(4)]
    vectors = np.array([[1, 2], [0, 0], [0, 1e-9], [0, 3]], np.float32)
    reasons = store_batch(cache, keys, vectors, "float16")
    reason = "the encoder's output for it is all zeros, at least as float16"
    assert reasons == {keys[1]: reason, keys[2]: reason}
    assert sorted(cache.index()) == [keys[0], keys[3]]
    ((positions, rows),) = read_vectors(cache.index(), [keys[3], keys[0]])
    assert rows.dtype == np.float16
    assert dict(zip(positions, rows.tolist(), strict=True)) == {0: [0, 3], 1: [1, 2]}


@pytest.mark.parametrize("shape", [(3, 2), (3, 4, 2)])
def test_a_batch_of_zeros_writes_no_shard(tmp_path: Path, shape: tuple[int, ...]) -> None:
    cache = ShardCache(tmp_path, "f" * 64)
    keys = [f"{number:064x}" for number in range(3)]
    assert set(store_batch(cache, keys, np.zeros(shape, np.float32), "float32")) == set(keys)
    assert list(tmp_path.rglob("*")) == []


def test_a_photo_with_some_zero_positions_is_stored(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, "f" * 64)
    grid = np.zeros((1, 4, 2), np.float32)
    grid[0, 3, 1] = 1
    assert store_batch(cache, ["a" * 64], grid, "float16") == {}


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(1e6, "float16"), (np.nan, "float16"), (np.inf, "float32"), (-np.inf, "float32")],
)
def test_vectors_that_cannot_be_stored_are_an_error(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, value: float, dtype: str
) -> None:
    def infer(_: MeanColourEngine, images: Pixels) -> Vectors:
        return np.full((len(images), 3), value, np.float32)

    monkeypatch.setattr(MeanColourEngine, "_infer", infer)
    with pytest.raises(
        InputError, match=rf"the encoder's output has numbers that {dtype} cannot hold: s"
    ):
        workspace.extract(feature_spec=replace(FEATURE_SPEC, dtype=dtype))
    assert not workspace.store.exists()
    assert not list(workspace.cache.rglob("*.npz"))


def test_a_photo_is_decoded_only_if_it_still_has_its_digest(workspace: Workspace) -> None:
    path = workspace.root / "03.png"
    pixels = read_and_decode(sha256_file(path), PhotoFile(path), 32, MAX_PIXELS, "whole")
    assert not isinstance(pixels, PhotoError)
    assert np.array_equal(pixels, decode_photo(path.read_bytes(), 32, MAX_PIXELS))
    for sha, limit, reason in [
        ("0" * 64, MAX_PIXELS, "changed while it was being read"),
        (sha256_file(path), 100, "48 x 40 pixels, more than max_pixels 100"),
    ]:
        failure = read_and_decode(sha, PhotoFile(path), 32, limit, "whole")
        assert isinstance(failure, PhotoError)
        assert str(failure) == reason


# The progress.


@pytest.mark.parametrize(
    ("idle_seconds", "seconds", "description"),
    [
        (0.0, 0.0, "the encoder is the slower side"),
        (0.9, 10.0, "the encoder is the slower side"),
        (5.0, 10.0, "decoding is the slower side, the encoder waits 50% of the time"),
    ],
)
def test_the_slower_side_is_described(
    idle_seconds: float, seconds: float, description: str
) -> None:
    assert describe_bottleneck(idle_seconds, seconds) == description


@pytest.mark.parametrize(("busy_share", "idle"), [(0.25, "75%"), (1.0, None)])
def test_the_progress_shows_the_slower_side_and_the_encoders_idle_share(
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    busy_share: float,
    idle: str | None,
) -> None:
    now = [0.0]

    def tick() -> float:
        now[0] += 1
        return now[0]

    class PartlyBusyEngine(MeanColourEngine):
        """Reports that it was busy for a share of the time."""

        def busy_seconds(self) -> float:
            return busy_share * now[0]

    # A second passes each time that the progress reads its clock.
    monkeypatch.setattr("pipeline.progress.time", SimpleNamespace(monotonic=tick))
    monkeypatch.setattr(local, "time", SimpleNamespace(monotonic=lambda: now[0]))
    stats = workspace.encode(replace(workspace.executor(PartlyBusyEngine()), progress_seconds=0))
    assert stats.seconds == now[0] > 0
    assert stats.idle_seconds == pytest.approx((1 - busy_share) * stats.seconds)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[-1].startswith("extract: 10 of 10 photos, ")
    description = f"decoding is the slower side, the encoder waits {idle} of the time"
    if idle is None:
        description = "the encoder is the slower side"
    assert lines[-1].endswith(f" (0 cached; {description})")


def test_the_progress_counts_failed_photos(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.write("03.png", b"<html>")
    workspace.write("09 black.png", encoded(make_photo().point(lambda _: 0), "PNG"))
    workspace.encode(replace(workspace.executor(), progress_seconds=0))
    lines = capsys.readouterr().err.splitlines()
    for line, done, failed in zip(lines, (5, 9, 11), (1, 1, 2), strict=True):
        assert line.startswith(f"extract: {done} of 11 photos, ")
        assert f" (0 cached, {failed} more failed; " in line
