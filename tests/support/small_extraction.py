"""A small finished extraction for tests to damage, and the check that it recovers."""

import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.features.shard_cache import ShardCache
from tests.conftest import encoded, make_photo
from tests.support import kill_points
from tests.support.kill_points import FEATURE_SPEC

PHOTOS = 10


def draw(folder: Path, numbers: range = range(PHOTOS)) -> Path:
    (folder / "photos").mkdir(exist_ok=True)
    for number in numbers:
        path = folder / "photos" / f"{number:02}.png"
        path.write_bytes(encoded(make_photo(seed=number), "PNG"))
    return folder


def store(folder: Path) -> Path:
    return folder / "artifacts" / "features.h5"


def shards(folder: Path) -> list[Path]:
    return sorted(ShardCache(folder / "cache", FEATURE_SPEC.fingerprint).folder.glob("*.npz"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished extraction; tests must not change it."""
    folder = draw(tmp_path_factory.mktemp("finished"))
    kill_points.extract(folder)
    return folder


@pytest.fixture
def damageable(finished: Path, tmp_path: Path) -> Path:
    """Return a copy for the test to damage, without the store: as DVC leaves it."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    store(tmp_path).unlink()
    return tmp_path


def extracted_again(damageable: Path, finished: Path) -> int:
    """Extract, check the store, and return the number of photos that were encoded."""
    result = kill_points.extract(damageable)
    assert store(damageable).read_bytes() == store(finished).read_bytes()
    assert list(damageable.rglob(".tmp-*")) == []
    assert kill_points.extract(damageable).stats.passes == 0
    return result.stats.computed


def run(folder: Path, largest_file: int = -1) -> subprocess.CompletedProcess[str]:
    """Extract in a process with a limit on file sizes, which acts like a full disk."""

    def limit() -> None:
        if largest_file >= 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    return subprocess.run(
        [sys.executable, "-m", "tests.support.kill_points", str(folder)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
    )
