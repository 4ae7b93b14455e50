"""Processes killed in the middle: no finished work is lost, and the result is the same."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.project import Project


@contextmanager
def _params(project: Project, section: str, **values: Any) -> Iterator[None]:
    path = project.folder / "params.yaml"
    before = path.read_bytes()
    project.set({section: values})
    try:
        yield
    finally:
        path.write_bytes(before)


def _signal_at(project: Project, signal_: signal.Signals, text: str, *command: str) -> int:
    """Start a command, signal its process group once it prints `text`; return its exit code."""
    with project.start(*command) as process:
        assert process.stdout is not None
        output = []
        for line in process.stdout:
            output.append(line)
            if text in line:
                os.killpg(process.pid, signal_)
                break
        else:
            pytest.fail("".join(output))
        process.communicate()
        return process.returncode


def test_a_killed_extraction_computes_only_the_rest(project: Project) -> None:
    stage = ("python", "-m", "pipeline.stages.extract")
    photos = len(list((project.folder / "data/mine/images").iterdir()))
    # No store in DVC's cache has these vectors.
    with _params(project, "extract", scales=1):
        with _params(project, "runtime", batch_size=4, cache=".whole"):
            assert project.run(*stage).forward_passes == (photos, -(-photos // 2))
            whole = project.read("artifacts/features.h5")
        (project.folder / "artifacts/features.h5").unlink()
        with _params(project, "runtime", batch_size=4, cache=".killed"):
            assert _signal_at(project, signal.SIGKILL, "extract: 6 of", *stage) == -signal.SIGKILL
            assert not (project.folder / "artifacts/features.h5").exists()
            run = project.run(*stage)
        assert run.forward_passes[0] <= photos - 6
        assert project.read("artifacts/features.h5") == whole
    project.repro()


def test_a_killed_training_resumes_at_its_last_epoch(project: Project) -> None:
    stage = ("python", "-m", "pipeline.stages.train")
    with _params(project, "train", epochs=12, patience=12):
        with _params(project, "runtime", cache=".whole"):
            assert project.run(*stage).code == 0
        names = ["model/seed_2026.weights.h5", "model/model.json", "history.csv"]
        names += ["samples/seed_2026/epoch_001.txt", "samples/seed_2026/epoch_012.png"]
        whole = {name: project.read(f"artifacts/{name}") for name in names}
        for name in names:
            (project.folder / "artifacts" / name).unlink()
        with _params(project, "runtime", cache=".killed"):
            assert _signal_at(project, signal.SIGKILL, "epoch 5:", *stage) == -signal.SIGKILL
            run = project.run(*stage)
        assert "resuming after epoch" in run.output
        assert "epoch 1:" not in run.output
        assert whole == {name: project.read(f"artifacts/{name}") for name in names}
    assert project.run("dvc", "checkout", "--force").code == 0


@pytest.mark.skipif(shutil.which("bash") is None, reason="see docs/decisions.md, Ctrl-C")
def test_ctrl_c_keeps_the_best_epoch_so_far_and_dvc_accepts_it(project: Project) -> None:
    with _params(project, "train", epochs=10_000, patience=10_000):
        command = ("dvc", "repro", "train")
        assert _signal_at(project, signal.SIGINT, "epoch 3:", *command) == 0
        (member,) = json.loads(project.read("artifacts/model/model.json"))["members"]
        assert member["metadata"]["stopped"] == "interrupted"
        assert member["metadata"]["epochs"] >= 3
        assert "up to date" in project.run("dvc", "status", "train").output
    project.repro()
