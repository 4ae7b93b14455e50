import threading
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.features.encoders import engines
from pipeline.features.encoders.engines import Engine, Pixels, Vectors


class RecordingEngine(Engine):
    """Returns the first number of each image; records the chunks that it receives."""

    def __init__(self, batch_size: int, chunk_size: int, threads: int) -> None:
        super().__init__((1,), batch_size, chunk_size, threads)
        self.chunks: list[list[int]] = []

    def _infer(self, images: Pixels) -> Vectors:
        self.chunks.append(images[:, 0].tolist())
        return images[:, :1].astype(np.float32)


def numbers(*values: int) -> Pixels:
    """Return stand-ins for images; the first number identifies each."""
    return np.array([[value, 9] for value in values], np.uint8)


def test_passes_are_counted_and_split_into_padded_chunks_in_order() -> None:
    engine = RecordingEngine(batch_size=7, chunk_size=3, threads=1)
    assert engine.passes == 0
    assert engine.encode(numbers(1, 2, 3, 4, 5, 6, 7)).tolist() == [[n] for n in range(1, 8)]
    assert engine.encode(numbers(8)).tolist() == [[8]]
    assert engine.passes == 2
    assert engine.chunks == [[1, 2, 3], [4, 5, 6], [7, 0, 0], [8, 0, 0]]


def test_as_many_chunks_run_at_once_as_there_are_threads() -> None:
    barrier = threading.Barrier(3)

    class BarrierEngine(RecordingEngine):
        def _infer(self, images: Pixels) -> Vectors:
            barrier.wait(timeout=30)  # raises if fewer than three threads run
            return super()._infer(images)

    engine = BarrierEngine(batch_size=6, chunk_size=1, threads=3)
    assert engine.encode(numbers(1, 2, 3, 4, 5, 6)).tolist() == [[n] for n in range(1, 7)]


@pytest.fixture
def go() -> Iterator[threading.Event]:
    """Return an event that paused engines wait for; it is set at the end of the test."""
    event = threading.Event()
    yield event
    event.set()


def paused_engine(go: threading.Event, **sizes: int) -> RecordingEngine:
    class PausedUntilSet(RecordingEngine):
        def _infer(self, images: Pixels) -> Vectors:
            go.wait(timeout=30)
            return super()._infer(images)

    return PausedUntilSet(**sizes)


def test_start_does_not_wait_for_the_pass(go: threading.Event) -> None:
    engine = paused_engine(go, batch_size=2, chunk_size=2, threads=1)
    first, second = engine.start(numbers(1, 2)), engine.start(numbers(3))
    assert engine.chunks == []
    go.set()
    assert second.result().tolist() == [[3]]
    assert first.result().tolist() == [[1], [2]]


def test_an_error_in_a_pass_is_raised_by_result() -> None:
    class FailingEngine(RecordingEngine):
        def _infer(self, images: Pixels) -> Vectors:
            if images[0, 0] == 2:
                raise ZeroDivisionError
            return super()._infer(images)

    engine = FailingEngine(batch_size=2, chunk_size=1, threads=2)
    pending = engine.start(numbers(1, 2))
    with pytest.raises(ZeroDivisionError):
        pending.result()
    assert engine.encode(numbers(3)).tolist() == [[3]]


def test_a_cancelled_pass_runs_only_the_chunks_that_have_started(go: threading.Event) -> None:
    engine = paused_engine(go, batch_size=4, chunk_size=2, threads=1)
    first, second = engine.start(numbers(1, 2, 3, 4)), engine.start(numbers(5))
    second.cancel()
    go.set()
    assert first.result().tolist() == [[1], [2], [3], [4]]
    first.cancel()  # too late
    engine._pool.shutdown()
    assert engine.chunks == [[1, 2], [3, 4]]


def test_an_engine_is_busy_while_a_chunk_is_running_or_waiting(
    monkeypatch: pytest.MonkeyPatch, go: threading.Event
) -> None:
    now = [100.0]
    monkeypatch.setattr(engines, "time", SimpleNamespace(monotonic=lambda: now[0]))
    engine = paused_engine(go, batch_size=2, chunk_size=1, threads=1)
    now[0] = 110.0
    assert engine.busy_seconds() == 0
    engine.start(numbers(1, 2))
    now[0] = 113.0
    assert engine.busy_seconds() == 3
    engine.start(numbers(3)).cancel()
    now[0] = 114.0
    assert engine.busy_seconds() == 4
    go.set()
    engine._pool.shutdown()  # waits for all chunks
    now[0] = 120.0
    assert engine.busy_seconds() == 4


def test_the_timer_counts_overlapping_jobs_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(engines, "time", SimpleNamespace(monotonic=lambda: now[0]))
    timer = engines._BusyTimer()

    def at(seconds: float, *changes: str) -> float:
        now[0] = seconds
        for change in changes:
            timer.start() if change == "start" else timer.stop(None)
        return timer.seconds()

    assert at(1, "start") == 0
    assert at(2, "start", "start") == 1
    assert at(4, "stop", "stop") == 3
    assert at(7, "stop") == 6
    assert at(17) == 6
    assert at(20, "start") == 6
    assert at(21, "stop", "start") == 7
    assert at(23) == 9
