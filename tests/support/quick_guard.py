"""Fails a quick test that starts a process or trains; a plugin of pytest."""

import multiprocessing.process
import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, Never
from unittest import mock

import pytest

_START_A_PROCESS = [
    (subprocess.Popen, "__init__"),
    (multiprocessing.process.BaseProcess, "start"),
    *((os, name) for name in ("fork", "forkpty", "posix_spawn", "posix_spawnp", "system")),
]
_TRAIN = ("fit", "train_on_batch")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool, bool]:
    """Guard quick tests, and the fixtures that are made for them."""
    is_quick = not {"slow", "soak"} & {marker.name for marker in item.iter_markers()}
    with guard() if is_quick else nullcontext():
        return (yield)


@contextmanager
def guard() -> Iterator[None]:
    """Let tests fail that start a process or train."""
    with ExitStack() as patches:
        for owner, name in _START_A_PROCESS:
            patches.enter_context(mock.patch.object(owner, name, _refuse("starts a process")))
        # Most tests need no Keras, and importing it takes seconds.
        if "keras" in sys.modules:
            model = sys.modules["keras"].Model
            for name in _TRAIN:
                patches.enter_context(mock.patch.object(model, name, _refuse("trains")))
        yield


def _refuse(what: str) -> Any:
    def fail(*_: object, **__: object) -> Never:
        pytest.fail(f"a quick test {what}: mark this file slow in tests/tiers.py")

    return fail
