"""The benchmark `random_kills`, short: `dvc repro` killed at moments that nobody chose."""

from pathlib import Path

import pytest

from benchmarks.random_kills import PASS, Victim, random_kills

KILLS = 6


@pytest.mark.large
def test_killed_at_random_it_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    found = random_kills(Victim(tmp_path, photos=40), KILLS, seed=1)
    assert found.kills == KILLS
    assert found.completed == found.identical
    assert found.twice <= KILLS * 2 * PASS
