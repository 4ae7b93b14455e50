import threading
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.features.encoders import engines
from pipeline.features.encoders.engines import Engine, Pixels, Vectors


class Counted(Engine):
    """Gives each photo its first number; notes the parts that it was given."""

    def __init__(self, batch_size: int, part: int, threads: int) -> None:
        super().__init__((1,), batch_size, part, threads)
        self.parts: list[list[int]] = []

    def _infer(self, part: Pixels) -> Vectors:
        self.parts.append(part[:, 0].tolist())
        return part[:, :1].astype(np.float32)


def numbers(*values: int) -> Pixels:
    """Stand for photos: the first number of each is its own."""
    return np.array([[value, 9] for value in values], np.uint8)


def test_passes_are_counted_and_cut_into_padded_parts_in_order() -> None:
    engine = Counted(batch_size=7, part=3, threads=1)
    assert engine.passes == 0
    assert engine.encode(numbers(1, 2, 3, 4, 5, 6, 7)).tolist() == [[n] for n in range(1, 8)]
    assert engine.encode(numbers(8)).tolist() == [[8]]
    assert engine.passes == 2
    assert engine.parts == [[1, 2, 3], [4, 5, 6], [7, 0, 0], [8, 0, 0]]


def test_as_many_parts_run_at_once_as_there_are_threads() -> None:
    meet = threading.Barrier(3)

    class Meets(Counted):
        def _infer(self, part: Pixels) -> Vectors:
            meet.wait(timeout=30)  # else it breaks, and so does the pass
            return super()._infer(part)

    engine = Meets(batch_size=6, part=1, threads=3)
    assert engine.encode(numbers(1, 2, 3, 4, 5, 6)).tolist() == [[n] for n in range(1, 7)]


@pytest.fixture
def go() -> Iterator[threading.Event]:
    """Hold engines until it is set; they are let go at the end."""
    event = threading.Event()
    yield event
    event.set()


def held(go: threading.Event, **sizes: int) -> Counted:
    class Held(Counted):
        def _infer(self, part: Pixels) -> Vectors:
            go.wait(timeout=30)
            return super()._infer(part)

    return Held(**sizes)


def test_a_pass_runs_beside_the_one_who_started_it(go: threading.Event) -> None:
    engine = held(go, batch_size=2, part=2, threads=1)
    first, second = engine.start(numbers(1, 2)), engine.start(numbers(3))
    assert engine.parts == []
    go.set()
    assert second.result().tolist() == [[3]]
    assert first.result().tolist() == [[1], [2]]


def test_what_goes_wrong_in_a_pass_is_told_where_its_vectors_are_asked_for() -> None:
    class Fails(Counted):
        def _infer(self, part: Pixels) -> Vectors:
            if part[0, 0] == 2:
                raise ZeroDivisionError
            return super()._infer(part)

    engine = Fails(batch_size=2, part=1, threads=2)
    begun = engine.start(numbers(1, 2))
    with pytest.raises(ZeroDivisionError):
        begun.result()
    assert engine.encode(numbers(3)).tolist() == [[3]]


def test_of_a_cancelled_pass_only_what_is_begun_is_done(go: threading.Event) -> None:
    engine = held(go, batch_size=4, part=2, threads=1)
    first, second = engine.start(numbers(1, 2, 3, 4)), engine.start(numbers(5))
    second.cancel()
    go.set()
    assert first.result().tolist() == [[1], [2], [3], [4]]
    first.cancel()  # too late
    engine._pool.shutdown()
    assert engine.parts == [[1, 2], [3, 4]]


def test_an_engine_is_busy_while_something_is_under_way(
    monkeypatch: pytest.MonkeyPatch, go: threading.Event
) -> None:
    now = [100.0]
    monkeypatch.setattr(engines, "time", SimpleNamespace(monotonic=lambda: now[0]))
    engine = held(go, batch_size=2, part=1, threads=1)
    now[0] = 110.0
    assert engine.busy() == 0
    engine.start(numbers(1, 2))
    now[0] = 113.0
    assert engine.busy() == 3
    engine.start(numbers(3)).cancel()
    now[0] = 114.0
    assert engine.busy() == 4
    go.set()
    engine._pool.shutdown()  # all of it is done now
    now[0] = 120.0
    assert engine.busy() == 4


def test_the_clock_counts_time_with_something_under_way_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(engines, "time", SimpleNamespace(monotonic=lambda: now[0]))
    clock = engines._BusyTimer()

    def at(seconds: float, *changes: str) -> float:
        now[0] = seconds
        for change in changes:
            clock.enter() if change == "enter" else clock.leave(None)
        return clock.busy()

    assert at(1, "enter") == 0
    assert at(2, "enter", "enter") == 1
    assert at(4, "leave", "leave") == 3
    assert at(7, "leave") == 6
    assert at(17) == 6
    assert at(20, "enter") == 6
    assert at(21, "leave", "enter") == 7
    assert at(23) == 9
