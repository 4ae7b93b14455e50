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
from pipeline.features.encoders.engines import Pixels, Vectors
from pipeline.features.executors import local
from pipeline.features.executors.local import (
    ahead,
    cores,
    keep_vectors,
    load_photo,
    slower_side,
)
from pipeline.features.photos import PhotoError, decode
from pipeline.features.shard_cache import ShardFolder, gather
from pipeline.files import sha256_file
from tests.conftest import ENCODING, encoded, make_photo
from tests.support.extraction import BATCH, MAX_PIXELS, Colours, Held, Place, spoil


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.drawn(tmp_path, 10)


# Beside each other.


def test_every_batch_is_a_shard(place: Place) -> None:
    outcome = place.encode(place.executor())
    assert (outcome.computed, outcome.passes, outcome.failed) == (10, 3, {})
    assert 0 <= outcome.waiting <= outcome.seconds
    shards = [shard for shard, _ in place.shards().index().values()]
    assert sorted(shards.count(shard) for shard in set(shards)) == [2, BATCH, BATCH]


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_the_number_of_workers_changes_nothing(place: Place, tmp_path: Path, workers: int) -> None:
    spoil(place)
    place.extract(workers=workers)
    first = place.store.read_bytes()
    place.extract(workers=2, cache=tmp_path / "other")
    assert place.store.read_bytes() == first


def test_processes_beside_an_accelerator_give_what_threads_give(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = spoil(place)
    place.extract()
    with_threads = place.store.read_bytes()

    def no_threads(*_: Any) -> None:
        raise AssertionError("photos are decoded in this process")

    monkeypatch.setattr(local, "decode", no_threads)
    engine = Colours(accelerated=True)
    result = place.extract(engine, executor=place.executor(engine), cache=tmp_path / "other")
    assert set(result.failed) == set(reasons)
    assert place.store.read_bytes() == with_threads


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_two_batches_are_under_way_and_no_more(place: Place) -> None:
    place.draw(*range(10, 18))
    engine = Held()
    most = 0
    add = ShardFolder.add

    def count(shards: ShardFolder, *arguments: Any) -> None:
        nonlocal most
        most = max(most, len(engine.begun) - len(list(shards.folder.glob("*.npz"))))
        add(shards, *arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ShardFolder, "add", count)
        running = threading.Thread(target=place.encode, args=(place.executor(engine),))
        running.start()
        try:
            wait_for(lambda: len(engine.begun) == 2)
            assert place.kept() == 0
            for done in range(1, 4):
                engine.go.release()
                wait_for(lambda done=done: len(engine.begun) == 2 + done)  # type: ignore[misc]
                assert place.kept() == done * BATCH
        finally:
            engine.go.release(10)
            running.join()
    assert engine.begun == [BATCH] * 4 + [2]
    assert most == 2
    assert place.kept() == 18


class Immediate(Executor):
    """Does work where it is submitted."""

    def __init__(self) -> None:
        self.submitted = 0

    def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        self.submitted += 1
        future: Future[Any] = Future()
        future.set_result(function(*arguments, **options))
        return future


@pytest.mark.parametrize("depth", [1, 3, 100])
def test_photos_are_loaded_in_order_and_not_too_far_ahead(depth: int) -> None:
    pool = Immediate()
    tasks = [(number, 2) for number in range(10)]
    for consumed, (task, result) in enumerate(ahead(pool, pow, iter(tasks), depth)):
        assert task == tasks[consumed]
        assert result == consumed**2
        assert pool.submitted == min(consumed + depth, 10)
    assert consumed == 9


def test_without_a_number_there_is_a_worker_for_each_core(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)
    pools: list[int] = []

    def pool(workers: int, **_: Any) -> Executor:
        pools.append(workers)
        return Immediate()

    monkeypatch.setattr(local, "ThreadPoolExecutor", pool)
    assert place.encode(replace(place.executor(), workers=None)).computed == 10
    assert place.encode(replace(place.executor(), workers=7)).computed == 10
    assert pools == [cores(), 7]


# What is kept.


def test_a_batch_is_kept_but_for_photos_of_which_nothing_is_seen(tmp_path: Path) -> None:
    shards = ShardFolder(tmp_path, "f" * 64)
    keys = [f"{number:064x}" for number in range(4)]
    vectors = np.array([[1, 2], [0, 0], [0, 1e-9], [0, 3]], np.float32)
    reasons = keep_vectors(shards, keys, vectors, "float16")
    reason = "the encoder gives nothing but zeros for it, as float16 at least"
    assert reasons == {keys[1]: reason, keys[2]: reason}
    assert sorted(shards.index()) == [keys[0], keys[3]]
    ((positions, rows),) = gather(shards.index(), [keys[3], keys[0]])
    assert rows.dtype == np.float16
    assert dict(zip(positions, rows.tolist(), strict=True)) == {0: [0, 3], 1: [1, 2]}


@pytest.mark.parametrize("shape", [(3, 2), (3, 4, 2)])
def test_of_a_batch_of_zeros_there_is_no_shard(tmp_path: Path, shape: tuple[int, ...]) -> None:
    shards = ShardFolder(tmp_path, "f" * 64)
    keys = [f"{number:064x}" for number in range(3)]
    assert set(keep_vectors(shards, keys, np.zeros(shape, np.float32), "float32")) == set(keys)
    assert list(tmp_path.rglob("*")) == []


def test_a_place_without_anything_is_no_photo_without_anything(tmp_path: Path) -> None:
    shards = ShardFolder(tmp_path, "f" * 64)
    grid = np.zeros((1, 4, 2), np.float32)
    grid[0, 3, 1] = 1
    assert keep_vectors(shards, ["a" * 64], grid, "float16") == {}


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(1e6, "float16"), (np.nan, "float16"), (np.inf, "float32"), (-np.inf, "float32")],
)
def test_vectors_that_cannot_be_stored_are_told(
    place: Place, monkeypatch: pytest.MonkeyPatch, value: float, dtype: str
) -> None:
    def infer(_: Colours, part: Pixels) -> Vectors:
        return np.full((len(part), 3), value, np.float32)

    monkeypatch.setattr(Colours, "_infer", infer)
    with pytest.raises(InputError, match=rf"the encoder gives numbers that {dtype} cannot hold: s"):
        place.extract(encoding=replace(ENCODING, dtype=dtype))
    assert not place.store.exists()
    assert not list(place.cache.rglob("*.npz"))


def test_a_photo_is_loaded_if_it_is_still_the_one_that_was_meant(place: Place) -> None:
    path = place.root / "03.png"
    found = load_photo(sha256_file(path), path, 32, MAX_PIXELS, "whole")
    assert not isinstance(found, PhotoError)
    assert np.array_equal(found, decode(path.read_bytes(), 32, MAX_PIXELS))
    for sha, limit, reason in [
        ("0" * 64, MAX_PIXELS, "changed while it was being read"),
        (sha256_file(path), 100, "48 x 40 pixels, more than max_pixels 100"),
    ]:
        failure = load_photo(sha, path, 32, limit, "whole")
        assert isinstance(failure, PhotoError)
        assert str(failure) == reason


# What is said.


@pytest.mark.parametrize(
    ("waiting", "seconds", "words"),
    [
        (0.0, 0.0, "the encoder is the slower side"),
        (0.9, 10.0, "the encoder is the slower side"),
        (5.0, 10.0, "decoding is the slower side, the encoder waits 50% of the time"),
    ],
)
def test_the_slower_side_is_named(waiting: float, seconds: float, words: str) -> None:
    assert slower_side(waiting, seconds) == words


@pytest.mark.parametrize(("share", "waits"), [(0.25, "75%"), (1.0, None)])
def test_progress_tells_which_side_waits_and_for_how_much_of_the_time(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    share: float,
    waits: str | None,
) -> None:
    now = [0.0]

    def tick() -> float:
        now[0] += 1
        return now[0]

    class Busy(Colours):
        """Says of itself that it has been at work for a share of the time."""

        def busy(self) -> float:
            return share * now[0]

    # Each look of the progress at its clock takes a second.
    monkeypatch.setattr("pipeline.progress.time", SimpleNamespace(monotonic=tick))
    monkeypatch.setattr(local, "time", SimpleNamespace(monotonic=lambda: now[0]))
    outcome = place.encode(replace(place.executor(Busy()), progress_seconds=0))
    assert outcome.seconds == now[0] > 0
    assert outcome.waiting == pytest.approx((1 - share) * outcome.seconds)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert said[-1].startswith("extract: 10 of 10 photos, ")
    side = f"decoding is the slower side, the encoder waits {waits} of the time"
    if waits is None:
        side = "the encoder is the slower side"
    assert said[-1].endswith(f" (0 cached; {side})")


def test_progress_counts_photos_that_fail(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.write("03.png", b"<html>")
    place.write("09 black.png", encoded(make_photo().point(lambda _: 0), "PNG"))
    place.encode(replace(place.executor(), progress_seconds=0))
    said = capsys.readouterr().err.splitlines()
    for line, done, failed in zip(said, (5, 9, 11), (1, 1, 2), strict=True):
        assert line.startswith(f"extract: {done} of 11 photos, ")
        assert f" (0 cached, {failed} more failed; " in line
