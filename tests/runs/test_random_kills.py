"""The benchmark `random_kills`: `dvc repro` killed at a hundred random moments."""

from pathlib import Path

import pytest

from benchmarks.random_kills import PASS, Victim, random_kills

KILLS = 100


@pytest.mark.timeout(3600)  # a kill takes five seconds
def test_runs_killed_at_random_moments_leave_the_right_store(tmp_path: Path) -> None:
    summary = random_kills(Victim(tmp_path, photos=40), KILLS, seed=1)
    assert summary.kills == KILLS
    assert summary.completed == summary.identical
    assert summary.twice <= KILLS * 2 * PASS
