import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.project import ROOT
from tests.support.quick_guard import guard
from tests.tiers import OF_NO_SINGLE_MODULE, TESTS, TIERS, position, tier

FILES = {path.relative_to(TESTS).as_posix() for path in TESTS.rglob("test_*.py")}


def test_the_longest_entry_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    for entry, name in (("a/test_b.py", "slow"), ("a/test_b.py::large", "soak")):
        monkeypatch.setitem(TIERS, entry, name)
    assert tier("a/test_b.py::test_c[small]") == "slow"
    assert tier("a/test_b.py::test_c[large]") == "soak"
    assert tier("a/test_b.py::test_large_files") == "soak"
    assert tier("a/test_bc.py::test_large_files") == "quick"


def test_files_start_in_the_order_of_the_table() -> None:
    first, *_, last = TIERS
    assert position(f"{first}::test_a[1]") == 0
    assert position(last) > 0
    assert position("no/test_file.py") == len(TIERS)


@pytest.mark.parametrize("entry", TIERS)
def test_every_entry_names_tests_that_exist(entry: str) -> None:
    file, _, part = entry.partition("::")
    assert file in FILES
    assert part in (TESTS / file).read_text("utf-8")
    assert TIERS[entry] in {"slow", "soak"}


def test_a_test_file_has_the_name_of_its_module_or_is_listed() -> None:
    def module(file: str) -> Path:
        folder = ROOT if file.startswith("benchmarks/") else ROOT / "pipeline"
        return folder / Path(file).with_name(Path(file).name.removeprefix("test_"))

    assert {file for file in FILES if not module(file).exists()} == OF_NO_SINGLE_MODULE


@pytest.mark.parametrize(
    "start",
    [
        lambda: subprocess.run([sys.executable, "-V"], check=True),
        lambda: os.posix_spawn(sys.executable, ["python", "-V"], {}),
        lambda: multiprocessing.Process(target=print).start(),
        lambda: os.fork(),  # noqa: PLW0108  (patched later)
    ],
)
def test_a_quick_test_that_starts_a_process_fails(start: Callable[[], object]) -> None:
    with pytest.raises(pytest.fail.Exception, match="mark this file slow"):
        start()


def test_a_quick_test_that_trains_fails() -> None:
    from pipeline.backend import keras  # noqa: PLC0415  (takes seconds)

    network = keras.Model(inputs := keras.Input((1,)), inputs)
    with guard(), pytest.raises(pytest.fail.Exception, match="a quick test trains: mark"):
        network.train_on_batch([[1.0]])
    with guard(), pytest.raises(pytest.fail.Exception, match="a quick test trains: mark"):
        network.fit([[1.0]])
