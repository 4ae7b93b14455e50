import io
import re

import pytest

from pipeline import progress as progress_module
from pipeline.progress import Progress, track


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show bars at once; they wait a second, so that short work shows none."""
    monkeypatch.setattr(progress_module, "_DELAY", 0.0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_plain_lines() -> None:
    log = io.StringIO()
    with Progress("extract", 8, "photos", seconds=0, stream=log) as progress:
        progress.advance(2)
        progress.advance()
    lines = log.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "extract: 2 of 8 photos",
        "extract: 3 of 8 photos",
    ]
    assert all(re.search(r", [\d.]+ photos/s, \d+ s left\Z", line) for line in lines)


def test_a_note_is_shown_after_the_counts() -> None:
    log, terminal = io.StringIO(), Terminal()
    for stream in (log, terminal):
        with Progress("extract", 8, "photos", seconds=0, stream=stream) as progress:
            progress.advance(2)
            assert progress.done == 2
            progress.advance(6, "1 failed; the encoder waits")
            assert progress.done == 8
    first, last = log.getvalue().splitlines()
    assert first.endswith(" s left")
    assert last.endswith(" s left (1 failed; the encoder waits)")
    assert "8/8" in terminal.getvalue()
    assert "1 failed; the encoder waits" in terminal.getvalue()


def test_a_log_gets_no_line_before_the_interval_ends() -> None:
    log = io.StringIO()
    with Progress("extract", 8, "photos", seconds=3600, stream=log) as progress:
        progress.advance(8)
    assert log.getvalue() == ""


def test_a_terminal_gets_a_bar() -> None:
    terminal = Terminal()
    with Progress("extract", 8, "photos", stream=terminal) as progress:
        progress.advance(3)
        progress.advance(5)
    output = terminal.getvalue()
    assert "\r" in output
    assert "extract: 100%" in output
    assert "8/8" in output


def test_the_bar_is_hidden_while_something_else_is_printed() -> None:
    terminal = Terminal()
    with Progress("caption", 8, "photos", stream=terminal) as progress:
        progress.advance(3)
        with progress.hidden():
            hidden_output = terminal.getvalue()
            terminal.write("a caption\n")
        assert terminal.getvalue() != hidden_output + "a caption\n"  # the bar is back
    assert re.search(r"\r *\ra caption\n", terminal.getvalue())


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_nothing_is_shown_for_a_total_of_zero(stream: io.StringIO) -> None:
    with Progress("caption", 0, "photos", stream=stream) as progress, progress.hidden():
        stream.write("a caption\n")
    assert stream.getvalue() == "a caption\n"


def test_a_bar_is_closed_when_the_work_fails() -> None:
    terminal = Terminal()

    def work() -> None:
        with Progress("extract", 8, "photos", stream=terminal) as progress:
            progress.advance(3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert terminal.getvalue().endswith("\n")


def test_short_work_shows_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_module, "_DELAY", 1.0)
    terminal = Terminal()
    with Progress("caption", 2, "photos", stream=terminal) as progress:
        progress.advance()
        with progress.hidden():
            terminal.write("a caption\n")
        progress.advance()
    assert terminal.getvalue() == "a caption\n"


def test_what_an_earlier_run_did_counts_as_done_but_not_as_speed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([0.0, 10.0])
    monkeypatch.setattr("pipeline.progress.time.monotonic", lambda: next(clock))
    log = io.StringIO()
    with Progress("train", 100, "captions", seconds=0, stream=log, done=60) as progress:
        progress.advance(20)
    assert log.getvalue() == "train: 80 of 100 captions, 2.0 captions/s, 10 s left\n"


def test_a_bar_starts_where_an_earlier_run_ended() -> None:
    terminal = Terminal()
    with Progress("train", 100, "captions", stream=terminal, done=60) as progress:
        progress.advance(40)
    assert "| 100/100 [" in terminal.getvalue()
    assert "| 40/100 [" not in terminal.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "1 s"), (119, "119 s"), (180, "3 min"), (7199, "120 min"), (9000, "2.5 h")],
)
def test_the_time_left_is_said_as_people_say_it(
    monkeypatch: pytest.MonkeyPatch, seconds: float, text: str
) -> None:
    clock = iter([0.0, float(seconds)])
    monkeypatch.setattr("pipeline.progress.time.monotonic", lambda: next(clock))
    log = io.StringIO()
    with Progress("extract", 2, "photos", seconds=0, stream=log) as progress:
        progress.advance()  # the second photo takes as long as the first
    assert log.getvalue().endswith(f", {text} left\n")


def test_tracked_items_count_when_the_next_one_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = io.StringIO()
    monkeypatch.setattr("sys.stderr", log)
    monkeypatch.setattr(progress_module, "_SECONDS", 0.0)
    chunks = track(["ab", "cde"], "greedy", 5, "photos", len)
    assert [(chunk, log.getvalue().count("\n")) for chunk in chunks] == [("ab", 0), ("cde", 1)]
    assert [line.split(",")[0] for line in log.getvalue().splitlines()] == [
        "greedy: 2 of 5 photos",
        "greedy: 5 of 5 photos",
    ]


def test_progress_is_written_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("extract", 2, "photos", seconds=0) as progress:
        progress.advance()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("extract: 1 of 2 photos")
