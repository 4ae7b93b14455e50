"""Progress for people: a bar on a terminal, a plain line every few seconds elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Never, Self, TextIO

from tqdm import tqdm


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
        seconds: float = 5.0,
        stream: TextIO | None = None,
    ) -> None:
        """Set up a display for `total` items; with a total of 0 nothing is shown.

        Args:
            title: what stands before the counts.
            total: number of items.
            unit: name of the items, in the plural.
            seconds: time between plain lines.
            stream: where to write; standard error if None.
        """
        self._title, self._total, self._unit, self._seconds = title, total, unit, seconds
        self._stream = sys.stderr if stream is None else stream
        self.done = 0
        self._bar: tqdm[Never] | None = None

    def __enter__(self) -> Self:
        self._start = self._last_line = time.monotonic()
        if self._total and self._stream.isatty():
            self._bar = tqdm(
                total=self._total, desc=self._title, unit=f" {self._unit}", file=self._stream
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
        if self._bar is None:
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
        if now - self._last_line >= self._seconds:
            self._last_line = now
            rate = self.done / (now - self._start)
            seconds_left = (self._total - self.done) / rate
            print(
                f"{self._title}: {self.done} of {self._total} {self._unit}, "
                f"{rate:.1f} {self._unit}/s, {seconds_left:.0f} s left"
                + (f" ({note})" if note else ""),
                file=self._stream,
                flush=True,
            )
