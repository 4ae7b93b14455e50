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
from pipeline.features.shard_cache import ShardCache
from tests.support.extraction import BATCH, MeanColourEngine, PausedEngine, Workspace
from tests.support.project import ROOT


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.drawn(tmp_path, 10)


def decoders() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("decode")]


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError, ZeroDivisionError])
def test_a_failure_stops_everything_and_keeps_finished_work(
    workspace: Workspace, error: type[BaseException]
) -> None:
    class Fails(MeanColourEngine):
        def _infer(self, images: Pixels) -> Vectors:
            if self._runs == 2:
                raise error("simulated")
            return super()._infer(images)

    workspace.draw(*range(10, 30))
    with pytest.raises(error):
        workspace.encode(workspace.executor(Fails()))
    assert workspace.cached_count() == 2 * BATCH
    assert decoders() == []


def test_no_new_work_starts_after_a_failure(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else Ctrl-C would be answered only after two more batches."""
    engine = PausedEngine()

    def full(*_: Any) -> None:
        raise OSError("no space")

    def release(futures: PendingBatch) -> Vectors:
        engine.permits.release()
        return result(futures)

    result = PendingBatch.result
    monkeypatch.setattr(PendingBatch, "result", release)
    monkeypatch.setattr(ShardCache, "add", full)
    # The first pass is let through, the second is under way, the third will not be begun.
    monkeypatch.setattr(local, "_MAX_PENDING", 3)
    with pytest.raises(OSError, match="no space"):
        workspace.encode(workspace.executor(engine))
    assert engine.started == [BATCH, BATCH, 2]
    engine.permits.release(10)
    engine._pool.shutdown()
    assert engine._runs == 2


PROGRAM = """
import sys, time
from pathlib import Path
from pipeline.stages.run import run_stage
from tests.support.extraction import MeanColourEngine, Workspace

class Slow(MeanColourEngine):
    def _infer(self, images):
        print("pass", flush=True)
        time.sleep(0.3)
        return super()._infer(images)

if __name__ == "__main__":
    engine = Slow(accelerated={accelerated})
    run_stage(lambda: Workspace(Path({folder!r})).extract(engine))
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
def test_ctrl_c_ends_the_process_and_all_that_it_started(
    workspace: Workspace, tmp_path: Path, accelerated: bool
) -> None:
    workspace.draw(*range(10, 60))
    with extraction(tmp_path, accelerated=accelerated) as process:
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "interrupted; run `dvc repro` to resume\n"
    done = workspace.cached_count()
    assert 2 * BATCH <= done < 60
    assert workspace.extract().stats.computed == 60 - done
    workspace.check()


def test_decoding_processes_end_with_an_extraction_that_is_killed(
    workspace: Workspace, tmp_path: Path
) -> None:
    workspace.draw(*range(10, 60))
    with extraction(tmp_path, accelerated=True) as process:
        process.kill()
        process.communicate(timeout=60)  # waits for every process that has its pipes
