import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.features.encoders.engines import PendingBatch, Pixels, Vectors
from pipeline.features.executors import local
from pipeline.features.shard_cache import ShardFolder
from tests.support.extraction import BATCH, Colours, Held, Place
from tests.support.project import ROOT


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.drawn(tmp_path, 10)


def decoders() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("decode")]


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError, ZeroDivisionError])
def test_after_a_failure_all_work_stops_and_finished_work_is_kept(
    place: Place, error: type[BaseException]
) -> None:
    class Fails(Colours):
        def _infer(self, part: Pixels) -> Vectors:
            if self._run == 2:
                raise error("on purpose")
            return super()._infer(part)

    place.draw(*range(10, 30))
    with pytest.raises(error):
        place.encode(place.executor(Fails()))
    assert place.kept() == 2 * BATCH
    assert decoders() == []


def test_no_further_pass_starts_after_a_failure(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else Ctrl-C would take effect only after two more batches."""
    engine = Held()

    def full(*_: Any) -> None:
        raise OSError("no space")

    def release(futures: PendingBatch) -> Vectors:
        engine.go.release()
        return result(futures)

    result = PendingBatch.result
    monkeypatch.setattr(PendingBatch, "result", release)
    monkeypatch.setattr(ShardFolder, "add", full)
    # The first pass is let through, the second is running, the third must not start.
    monkeypatch.setattr(local, "_UNDER_WAY", 3)
    with pytest.raises(OSError, match="no space"):
        place.encode(place.executor(engine))
    assert engine.begun == [BATCH, BATCH, 2]
    engine.go.release(10)
    engine._pool.shutdown()
    assert engine._run == 2


PROGRAM = """
import sys, time
from pathlib import Path
from pipeline.stages.run import run_stage
from tests.support.extraction import Colours, Place

class Slow(Colours):
    def _infer(self, part):
        print("pass", flush=True)
        time.sleep(0.3)
        return super()._infer(part)

if __name__ == "__main__":
    engine = Slow(accelerated={accelerated})
    run_stage(lambda: Place(Path({folder!r})).extract(engine))
"""


@contextmanager
def extraction(folder: Path, *, accelerated: bool) -> Iterator[subprocess.Popen[str]]:
    """Start an extraction in its own process; yield the process after a few passes."""
    program = folder / "program.py"
    program.write_text(PROGRAM.format(accelerated=accelerated, folder=str(folder)), "utf-8")
    with subprocess.Popen(
        [sys.executable, str(program)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509  (it touches no lock)
    ) as process:
        assert process.stdout is not None
        for _ in range(4):
            assert process.stdout.readline() == "pass\n"
        yield process


@pytest.mark.parametrize("accelerated", [False, True], ids=["threads", "processes"])
def test_ctrl_c_ends_the_process_and_all_its_children(
    place: Place, tmp_path: Path, accelerated: bool
) -> None:
    place.draw(*range(10, 60))
    with extraction(tmp_path, accelerated=accelerated) as process:
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "interrupted; run `dvc repro` to go on\n"
    finished = place.kept()
    assert 2 * BATCH <= finished < 60
    assert place.extract().encoded.computed == 60 - finished
    place.check()


def test_decoding_processes_end_with_an_extraction_that_is_killed(
    place: Place, tmp_path: Path
) -> None:
    place.draw(*range(10, 60))
    with extraction(tmp_path, accelerated=True) as process:
        process.kill()
        process.communicate(timeout=60)  # waits for every process that has its pipes
