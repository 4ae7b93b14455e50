"""Progress for people: a bar on a terminal, a plain line every few seconds elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Never, Self, TextIO, TypeVar

from tqdm import tqdm

_DELAY = 1.0  # seconds; work that is done sooner shows nothing
_SECONDS = 5.0  # between plain lines
_MINUTE, _HOUR = 60, 3600

Item = TypeVar("Item")


class Progress:
    """A progress display, as a context manager.

    On a terminal it is a bar; in a log or a pipe it prints lines such as
    `extract: 320 of 480 photos, 7.9 photos/s, 20 s left (2 failed)`.

    Attributes:
        done: how many are done so far.
    """

    def __init__(
        self,
        title: str,
        total: int,
        unit: str,
        seconds: float | None = None,
        stream: TextIO | None = None,
        *,
        done: int = 0,
    ) -> None:
        """Set up a display for `total` items; with a total of 0 nothing is shown.

        Args:
            title: what stands before the counts.
            total: number of items.
            unit: name of the items, in the plural.
            seconds: time between plain lines; None: a few.
            stream: where to write; standard error if None.
            done: how many were done before, by a run that is resumed.
        """
        self._title, self._total, self._unit = title, total, unit
        self._seconds = _SECONDS if seconds is None else seconds
        self._stream = sys.stderr if stream is None else stream
        self._done_before = self.done = done
        self._bar: tqdm[Never] | None = None

    def __enter__(self) -> Self:
        self._start = self._last_line = time.monotonic()
        if self._total and self._stream.isatty():
            self._bar = tqdm(
                total=self._total,
                initial=self.done,
                desc=self._title,
                unit=f" {self._unit}",
                file=self._stream,
                delay=_DELAY,
                smoothing=0,  # the time left follows from the mean speed, as in the plain lines
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Hide the bar while the body prints to the same terminal."""
        if self._bar is None or time.monotonic() - self._start < _DELAY:
            yield
            return
        with tqdm.external_write_mode(file=self._stream):
            yield

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` more items as done; `note` is shown after the counts."""
        self.done += count
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
            return
        now = time.monotonic()
        if now - self._last_line >= self._seconds and self.done > self._done_before:
            self._last_line = now
            rate = (self.done - self._done_before) / (now - self._start)
            time_left = _duration((self._total - self.done) / rate)
            print(
                f"{self._title}: {self.done} of {self._total} {self._unit}, "
                f"{rate:.1f} {self._unit}/s, {time_left} left" + (f" ({note})" if note else ""),
                file=self._stream,
                flush=True,
            )


def track(
    items: Iterable[Item],
    title: str,
    total: int,
    unit: str,
    count: Callable[[Item], int] = lambda _: 1,
) -> Iterator[Item]:
    """Yield items and show the progress: an item is done when the next one is asked for.

    Args:
        items: the items, or chunks of them.
        title: see `Progress`.
        total: number of items in all chunks.
        unit: name of the items, in the plural.
        count: returns the number of items in a chunk.
    """
    with Progress(title, total, unit) as progress:
        for item in items:
            yield item
            progress.advance(count(item))


def _duration(seconds: float) -> str:
    """Return a duration as a person would say it: "40 s", "3 min", "2.5 h"."""
    if seconds < 2 * _MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / _MINUTE:.0f} min" if seconds < 2 * _HOUR else f"{seconds / _HOUR:.1f} h"
