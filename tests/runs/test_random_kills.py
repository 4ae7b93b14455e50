"""The benchmark `random_kills`: `dvc repro` killed at a hundred random moments."""

from pathlib import Path

import pytest

from benchmarks.random_kills import BATCH_SIZE, KilledProject, kill_randomly

KILLS = 100


@pytest.mark.timeout(3600)  # a kill takes five seconds
def test_randomly_killed_runs_end_like_an_uninterrupted_one(tmp_path: Path) -> None:
    summary = kill_randomly(KilledProject(tmp_path, photos=40), KILLS, seed=1)
    assert summary.kills == KILLS
    assert summary.completed == summary.identical
    assert summary.recomputed <= KILLS * 2 * BATCH_SIZE
