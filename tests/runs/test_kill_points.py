"""A process killed at every point at which a file is incomplete."""

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pipeline.features.store import FeatureStore
from tests.conftest import slow_imports
from tests.support.kill_points import BATCH, FILE_POINTS, PASS, POINTS
from tests.support.small_extraction import PHOTOS, draw, store

SHARDS = PHOTOS // PASS
OLD = 6  # photos of an older store

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")


def start(folder: Path, *point: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.support.kill_points", str(folder), *point]
    return subprocess.Popen(command, cwd=Path(__file__).parents[2])


def run(folder: Path, *point: str) -> int:
    with start(folder, *point) as process:
        return process.wait()


def computed(folder: Path) -> Counter[str]:
    """Count how often each photo went through the encoder."""
    return Counter((folder / "computed").read_text().split())


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob(".tmp-*"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of the store of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    draw(folder)
    assert run(folder) == 0
    assert computed(folder).total() == PHOTOS
    return store(folder).read_bytes()


def counts(where: str, point: str) -> tuple[int, ...]:
    """Return the times of reaching a point at which it kills, the most telling first."""
    if (where, point) == ("store", "half written"):
        return (5, 1, 9)  # blocks
    if where == "store" and point in FILE_POINTS:
        return (1,)
    return (3, 1, SHARDS)


# `make test` reaches each point once, `make soak` at the other counts too.
KILLS = [
    pytest.param(where, point, count, marks=[pytest.mark.soak] if number else [])
    for where, points in POINTS.items()
    for point in points
    for number, count in enumerate(counts(where, point))
]


@pytest.mark.parametrize(("where", "point", "count"), KILLS)
def test_a_run_killed_at_any_point_is_completed_by_the_next(
    tmp_path: Path, whole: bytes, where: str, point: str, count: int
) -> None:
    draw(tmp_path)
    assert run(tmp_path, where, point, str(count)) == -signal.SIGKILL
    # There is either no store or a complete one.
    assert not store(tmp_path).exists() or store(tmp_path).read_bytes() == whole
    assert run(tmp_path) == 0
    assert store(tmp_path).read_bytes() == whole
    encoded = computed(tmp_path)
    assert len(encoded) == PHOTOS
    assert encoded.total() - PHOTOS <= BATCH
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("point", POINTS["store"])
def test_the_old_store_stays_readable_at_every_moment(
    tmp_path: Path, whole: bytes, point: str
) -> None:
    draw(tmp_path, range(OLD))
    assert run(tmp_path) == 0
    old = FeatureStore.open(store(tmp_path)).verify()
    draw(tmp_path, range(OLD, PHOTOS))
    digests = set()
    for points in (("store", point, "1"), ()):
        with start(tmp_path, *points) as process:
            while process.poll() is None:
                digests.add(FeatureStore.open(store(tmp_path)).verify())
        digests.add(FeatureStore.open(store(tmp_path)).verify())
        assert process.returncode == (-signal.SIGKILL if points else 0)
    assert store(tmp_path).read_bytes() == whole
    assert digests == {old, FeatureStore.open(store(tmp_path)).verify()}
    assert computed(tmp_path).total() == PHOTOS


def test_a_run_killed_again_and_again_is_completed_in_the_end(tmp_path: Path, whole: bytes) -> None:
    draw(tmp_path)
    kills = 0
    while run(tmp_path, "shard", "before rename", "2") == -signal.SIGKILL:
        kills += 1
    assert kills == SHARDS - 1
    assert store(tmp_path).read_bytes() == whole
    assert computed(tmp_path).total() - PHOTOS <= kills * BATCH
    assert leftovers(tmp_path) == []


def test_the_process_to_kill_imports_no_framework() -> None:
    _, modules = slow_imports("import tests.support.kill_points")
    assert modules == ["PIL", "numpy"]
