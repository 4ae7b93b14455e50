"""Disks that are full, have a limit, or cannot be written to.

Each fault ends in one line that names the fix; no row is ever wrong.
"""

import io
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.errors import InputError
from pipeline.storage import hdf5
from pipeline.storage.hdf5 import DeferredErrorFile, create_file
from tests.support import kill_points
from tests.support.small_extraction import (
    PHOTOS,
    draw,
    extracted_again,
    run,
    store,
)

# Full disks, and disks with a limit on the size of a file.

FULL = re.compile(r"error: the disk: (File too large|No space left on device): [^\n]+\n")


@pytest.mark.parametrize("largest_file", [0, 1, 200, 400])
def test_no_room_for_a_shard(tmp_path: Path, finished: Path, largest_file: int) -> None:
    draw(tmp_path)
    (tmp_path / "computed").symlink_to(os.devnull)
    result = run(tmp_path, largest_file)
    assert result.returncode == 1
    assert FULL.fullmatch(result.stderr)
    assert not store(tmp_path).exists()
    assert list(tmp_path.rglob(".tmp-*")) == []
    assert extracted_again(tmp_path, finished) == PHOTOS


@pytest.mark.parametrize("missing", [1, 100, 1000, 1500, 2000])
def test_no_room_for_the_store(damageable: Path, finished: Path, missing: int) -> None:
    store(damageable).write_bytes(b"an older store")
    result = run(damageable, store(finished).stat().st_size - missing)
    assert result.returncode == 1
    assert FULL.fullmatch(result.stderr)
    assert store(damageable).read_bytes() == b"an older store"
    assert extracted_again(damageable, finished) == 0


def write(path: Path, rows: npt.NDArray[np.float32]) -> None:
    with create_file(path) as (file, output):
        file["a"] = np.arange(1000)
        file["rows"] = rows
        output.check()
        pytest.fail("it was all taken")


def test_hdf5_never_sees_the_error_of_a_disk_that_is_full(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    rows = np.ones((100, 2048), "f4")
    sizes = []
    for size in range(0, rows.nbytes, 40_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            with pytest.raises(OSError, match="File too large"):
                write(tmp_path / "a.h5", rows)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        # The disk takes what it can.
        sizes.append((tmp_path / "a.h5").stat().st_size)
    assert sizes == sorted(sizes)
    assert sizes[0] == 0


class ShortWrites(io.FileIO):
    def write(self, data: Any) -> int:
        return super().write(memoryview(data)[:7])


class DeferredErrorFileOfShortWrites(DeferredErrorFile, ShortWrites):
    pass


def test_short_writes_are_continued(
    damageable: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5, "DeferredErrorFile", DeferredErrorFileOfShortWrites)
    assert extracted_again(damageable, finished) == 0


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Mount something on a folder within the context; skip the test where that is not allowed."""
    mount = shutil.which("mount")
    command = [str(mount), *options, str(folder)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("name", ["cache", "artifacts"])
def test_a_disk_that_is_really_full(tmp_path: Path, finished: Path, name: str) -> None:
    draw(tmp_path)
    disk = tmp_path / name
    disk.mkdir()
    with mounted(disk, "-t", "tmpfs", "-o", "size=64k", "none"):
        filler = disk / "filler"
        with pytest.raises(OSError, match="No space left"):
            filler.write_bytes(bytes(1 << 20))
        result = run(tmp_path)
        assert result.returncode == 1
        assert FULL.fullmatch(result.stderr)
        assert "free some space and rerun; finished work is kept" in result.stderr
        assert not store(tmp_path).exists()
        filler.unlink()
        computed = extracted_again(tmp_path, finished)
        assert computed == (PHOTOS if name == "cache" else 0)


# Folders that cannot be written to.


@contextmanager
def read_only(folder: Path) -> Iterator[str]:
    """Make a folder read-only, for root too; yield the system's error for a write to it."""
    if os.geteuid():
        folder.chmod(0o500)
        try:
            yield "Permission denied"
        finally:
            folder.chmod(0o700)
    else:
        with mounted(folder, "--bind", str(folder)):
            subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
            yield "Read-only file system"


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "after a run"])
@pytest.mark.parametrize(
    ("name", "where", "fix"),
    [
        ("cache", "cache/features/", r"make it writable, or set runtime\.cache in params\.yaml to"),
        ("artifacts", "artifacts", r"make it writable"),
    ],
)
def test_a_read_only_folder_is_named(
    damageable: Path, finished: Path, *, fresh: bool, name: str, where: str, fix: str
) -> None:
    if fresh:
        shutil.rmtree(damageable / name)
        (damageable / name).mkdir()
    with read_only(damageable / name) as reason:
        result = run(damageable)
        assert result.returncode == 1
        line = (
            rf"error: {re.escape(str(damageable))}/{where}\w* cannot be written to \({reason}\): "
        )
        assert re.fullmatch(rf"{line}{fix}[^\n]*\n", result.stderr)
    assert extracted_again(damageable, finished) == (PHOTOS if fresh and name == "cache" else 0)


@pytest.mark.parametrize("name", ["cache", "cache/features", "artifacts"])
def test_a_file_in_the_place_of_a_folder_is_named(damageable: Path, name: str) -> None:
    shutil.rmtree(damageable / name)
    (damageable / name).write_bytes(b"a file")
    with pytest.raises(
        InputError, match=rf"{damageable / name}.* cannot be written to \(.*\): make"
    ):
        kill_points.extract(damageable)
    assert (damageable / name).read_bytes() == b"a file"


def test_a_folder_in_the_place_of_the_store_is_named(damageable: Path, finished: Path) -> None:
    store(damageable).mkdir()
    result = run(damageable)
    assert result.returncode == 1
    assert re.fullmatch(r"error: .*features\.h5: Is a directory: move [^\n]+\n", result.stderr)
    store(damageable).rmdir()
    assert extracted_again(damageable, finished) == 0
