"""Two writers on one disk: two extractions, or one that outlives its `dvc`."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import InputError
from tests.support import kill_points
from tests.support.kill_points import FEATURE_SPEC
from tests.support.project import Project, environment
from tests.support.small_extraction import draw, extracted_again, run


def wait_until_stopped(process: int) -> None:
    while (state := Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]) != "T":
        assert state != "Z", "the process ended before it stopped"
        time.sleep(0.01)


@contextmanager
def stopped_in_the_middle(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start an extraction that stops while it writes, as if it took its time; in the end go on."""
    command = [
        "-m",
        "tests.support.kill_points",
        str(folder),
        "shard",
        "before rename",
        "2",
        "SIGSTOP",
    ]
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, *command], cwd=root) as process:
        try:
            wait_until_stopped(process.pid)
            yield process
        finally:
            process.send_signal(signal.SIGCONT)


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
WAIT = "wait until it ends, or end it"


@needs_proc
def test_the_second_of_two_writers_fails_at_once_and_the_first_succeeds(
    tmp_path: Path, finished: Path
) -> None:
    draw(tmp_path)
    with stopped_in_the_middle(tmp_path) as first:
        result = run(tmp_path)
        assert result.returncode == 1
        error = rf"error: another extraction is writing to {tmp_path}/artifacts: {WAIT}\n"
        assert re.fullmatch(error, result.stderr)
    assert first.returncode == 0
    assert extracted_again(tmp_path, finished) == 0


@needs_proc
def test_a_writer_with_other_params_cannot_write_the_same_store(
    tmp_path: Path, finished: Path
) -> None:
    draw(tmp_path)
    other = replace(FEATURE_SPEC, dtype="float16")
    error = f"another extraction is writing to {tmp_path}/artifacts: {WAIT}"
    with stopped_in_the_middle(tmp_path) as first:
        with pytest.raises(InputError, match=re.escape(error)):
            kill_points.extract(tmp_path, feature_spec=other)
        (tmp_path / "cache").rename(tmp_path / "old cache")
        with pytest.raises(InputError, match=re.escape(error)):
            kill_points.extract(tmp_path)
        assert not (tmp_path / "cache").exists()
        (tmp_path / "old cache").rename(tmp_path / "cache")
    assert first.returncode == 0
    assert extracted_again(tmp_path, finished) == 0


# An interrupted `dvc`.

STOPS_ITSELF = """
import os, signal, sys

opened = []

def stop(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".npz") and "w" in (arguments[1] or ""):
        opened.append(arguments[0])
        if len(opened) == 2:
            os.kill(os.getpid(), signal.SIGSTOP)

sys.addaudithook(stop)
"""


def stages_of(group: int) -> list[int]:
    """Return the processes of a process group that run a stage."""
    processes = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            command = (folder / "cmdline").read_bytes().split(b"\0")
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and command[1:3] == [b"-m", b"pipeline.stages.extract"]:
                processes.append(int(folder.name))
    return processes


@contextmanager
def new_params(project: Project) -> Iterator[None]:
    """Set params that DVC has not seen; restore the old ones in the end."""
    path = project.folder / "params.yaml"
    before = path.read_bytes()
    project.set({"extract": {"pooling": "grid"}, "runtime": {"batch_size": 2}})
    try:
        yield
    finally:
        path.write_bytes(before)
        project.repro()


@needs_proc
def test_a_stage_that_outlives_its_dvc_blocks_the_next_run_until_it_ends(
    project: Project, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(STOPS_ITSELF)
    photos = len(list((project.folder / "data/mine/images").iterdir()))
    with new_params(project):
        project.set({"runtime": {"cache": ".whole"}})
        extract = project.run("python", "-m", "pipeline.stages.extract")
        assert extract.forward_passes[0] == photos
        whole = project.read("artifacts/features.h5")
        (project.folder / "artifacts/features.h5").unlink()  # else it has all vectors
        project.set({"runtime": {"cache": ".outlived"}})
        with subprocess.Popen(
            ["dvc", "repro", "extract"],
            cwd=project.folder,
            env=environment() | {"PYTHONPATH": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as dvc:
            assert dvc.stdout is not None
            while "extract: " not in (line := dvc.stdout.readline()):
                assert line, "dvc ended before its first photos"
            try:
                (stage,) = stages_of(dvc.pid)
                wait_until_stopped(stage)
                dvc.kill()
                dvc.wait()
                again = project.run("dvc", "repro", "extract")
                assert again.code != 0
                error = "error: another extraction is writing to artifacts: wait"
                assert error in again.output
                os.kill(stage, signal.SIGCONT)
                # Reads until the stage ends.
                assert f"{photos} photos: {photos} computed" in dvc.stdout.read()
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(dvc.pid, signal.SIGKILL)
        assert project.read("artifacts/features.h5") == whole
        once_more = project.repro("extract")
        assert once_more.stages == ["extract"]
        assert f"{photos} photos: 0 computed" in once_more.output
        assert project.read("artifacts/features.h5") == whole
        assert "up to date" in project.run("dvc", "status", "extract").output
