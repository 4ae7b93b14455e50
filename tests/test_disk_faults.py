"""Disks that are full, read-only or damaged, and writers that meet on them.

Each ends in one line that names the mend, or is mended in silence; no row is ever wrong.
"""

import io
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.errors import InputError
from pipeline.features import hdf5
from pipeline.features.hdf5 import Disk, create
from pipeline.features.shards import ShardFolder
from tests import kill_points
from tests.conftest import encoded, make_photo
from tests.kill_points import ENCODING, PASS
from tests.project import Project, environment

PHOTOS = 10
SHARDS = PHOTOS // PASS


def draw(folder: Path) -> Path:
    (folder / "photos").mkdir()
    for number in range(PHOTOS):
        path = folder / "photos" / f"{number:02}.png"
        path.write_bytes(encoded(make_photo(seed=number), "PNG"))
    return folder


def store(folder: Path) -> Path:
    return folder / "artifacts" / "features.h5"


def shards(folder: Path) -> list[Path]:
    return sorted(ShardFolder(folder / "cache", ENCODING.fingerprint).folder.glob("*.npz"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder after an extraction; not to be changed."""
    folder = draw(tmp_path_factory.mktemp("finished"))
    kill_points.extract(folder)
    return folder


@pytest.fixture
def place(finished: Path, tmp_path: Path) -> Path:
    """The same to be spoiled, without the store: as DVC leaves it."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    store(tmp_path).unlink()
    return tmp_path


def extracted_again(place: Path, finished: Path) -> int:
    """Extract, check the store, and return how many photos that took."""
    result = kill_points.extract(place)
    assert store(place).read_bytes() == store(finished).read_bytes()
    assert list(place.rglob(".tmp-*")) == []
    assert kill_points.extract(place).encoded.passes == 0
    return result.encoded.computed


# Full disks, and those that take no more for another reason.

FULL = re.compile(r"error: the disk: (File too large|No space left on device): [^\n]+\n")


def run(folder: Path, largest_file: int = -1) -> subprocess.CompletedProcess[str]:
    """Extract in a process that may not write larger files, as on a disk that is full."""

    def limit() -> None:
        if largest_file >= 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    return subprocess.run(
        [sys.executable, "-m", "tests.kill_points", str(folder)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
    )


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
def test_no_room_for_the_store(place: Path, finished: Path, missing: int) -> None:
    store(place).write_bytes(b"the old one")
    result = run(place, store(finished).stat().st_size - missing)
    assert result.returncode == 1
    assert FULL.fullmatch(result.stderr)
    assert store(place).read_bytes() == b"the old one"
    assert extracted_again(place, finished) == 0


def write(path: Path, rows: npt.NDArray[np.float32]) -> None:
    with create(path) as (file, disk):
        file["a"] = np.arange(1000)
        file["rows"] = rows
        disk.check()
        pytest.fail("it was all taken")


def test_hdf5_is_not_told_of_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    rows = np.ones((100, 2048), "f4")
    seen = []
    for size in range(0, rows.nbytes, 40_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            with pytest.raises(OSError, match="File too large"):
                write(tmp_path / "a.h5", rows)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        # What was written before is there: the disk takes what it can.
        seen.append((tmp_path / "a.h5").stat().st_size)
    assert seen == sorted(seen)
    assert seen[0] == 0


class ShortWrites(io.FileIO):
    def write(self, data: Any) -> int:
        return super().write(memoryview(data)[:7])


class DiskOfShortWrites(Disk, ShortWrites):
    pass


def test_short_writes_are_gone_on_with(
    place: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5, "Disk", DiskOfShortWrites)
    assert extracted_again(place, finished) == 0


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Mount something on a folder as long as the context lasts; skip where that is not allowed."""
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
        rest = disk / "rest"
        with pytest.raises(OSError, match="No space left"):
            rest.write_bytes(bytes(1 << 20))
        result = run(tmp_path)
        assert result.returncode == 1
        assert FULL.fullmatch(result.stderr)
        assert "free some space; what was computed is kept" in result.stderr
        assert not store(tmp_path).exists()
        rest.unlink()
        computed = extracted_again(tmp_path, finished)
        assert computed == (PHOTOS if name == "cache" else 0)


# Folders that cannot be written to.


@contextmanager
def read_only(folder: Path) -> Iterator[str]:
    """Make a folder read-only, for root too; yield what the system says of writing there."""
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
    ("name", "where", "mend"),
    [
        ("cache", "cache/features/", r"make it writable, or set runtime\.cache in params\.yaml to"),
        ("artifacts", "artifacts", r"make it writable"),
    ],
)
def test_a_read_only_folder_is_named(
    place: Path, finished: Path, *, fresh: bool, name: str, where: str, mend: str
) -> None:
    if fresh:
        shutil.rmtree(place / name)
        (place / name).mkdir()
    with read_only(place / name) as reason:
        result = run(place)
        assert result.returncode == 1
        line = rf"error: {re.escape(str(place))}/{where}\w* cannot be written to \({reason}\): "
        assert re.fullmatch(rf"{line}{mend}[^\n]*\n", result.stderr)
    assert extracted_again(place, finished) == (PHOTOS if fresh and name == "cache" else 0)


@pytest.mark.parametrize("name", ["cache", "cache/features", "artifacts"])
def test_a_file_in_the_place_of_a_folder_is_named(place: Path, name: str) -> None:
    shutil.rmtree(place / name)
    (place / name).write_bytes(b"a file")
    with pytest.raises(InputError, match=rf"{place / name}.* cannot be written to \(.*\): make"):
        kill_points.extract(place)
    assert (place / name).read_bytes() == b"a file"


def test_a_folder_in_the_place_of_the_store_is_named(place: Path, finished: Path) -> None:
    store(place).mkdir()
    result = run(place)
    assert result.returncode == 1
    assert re.fullmatch(r"error: .*features\.h5: Is a directory: move [^\n]+\n", result.stderr)
    store(place).rmdir()
    assert extracted_again(place, finished) == 0


# Shards that are not as they were written, or no shards at all.


def test_a_shard_cut_off_anywhere_is_computed_again(place: Path, finished: Path) -> None:
    shard = shards(place)[2]
    whole = shard.read_bytes()
    for length in range(0, len(whole), 29):
        shard.write_bytes(whole[:length])
        assert extracted_again(place, finished) == PASS
        assert shard.read_bytes() == whole


def test_a_tail_of_zeros_after_a_power_cut_is_computed_again(place: Path, finished: Path) -> None:
    shard = shards(place)[2]
    whole = shard.read_bytes()
    for length in range(0, len(whole), 29):
        shard.write_bytes(whole[:length].ljust(len(whole), b"\0"))
        assert extracted_again(place, finished) == PASS


def test_a_flipped_bit_anywhere_is_computed_again_or_changes_nothing(
    place: Path, finished: Path
) -> None:
    shard = shards(place)[2]
    whole = shard.read_bytes()
    draw_ = random.Random(0)
    computed = []
    for byte in draw_.sample(range(len(whole)), 150):
        damaged = bytearray(whole)
        damaged[byte] ^= 1 << draw_.randrange(8)
        shard.write_bytes(damaged)
        computed.append(extracted_again(place, finished))
        shard.write_bytes(whole)
    assert set(computed) == {0, PASS}
    assert computed.count(PASS) > len(computed) / 2


def test_any_number_of_damaged_shards_is_mended_in_one_run(place: Path, finished: Path) -> None:
    for shard in shards(place):
        data = bytearray(shard.read_bytes())
        data[data.index(b"NUMPY", data.index(b"vectors")) + 128] ^= 1
        shard.write_bytes(data)
    assert extracted_again(place, finished) == PHOTOS


def test_a_disk_that_damages_all_it_is_given_is_named(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = ShardFolder.add

    def damaging(folder: ShardFolder, *arguments: object) -> None:
        add(folder, *arguments)  # type: ignore[arg-type]
        for shard in folder.folder.glob("*.npz"):
            shard.write_bytes(shard.read_bytes()[:-60])

    monkeypatch.setattr(ShardFolder, "add", damaging)
    for shard in shards(place):
        shard.unlink()
    with pytest.raises(InputError, match=r"was found damaged 3 times: look after that disk"):
        kill_points.extract(place)


def members(shard: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(shard) as file:
        return {name: file.read(name) for name in file.namelist()}


def write_members(shard: Path, content: dict[str, bytes]) -> None:
    with zipfile.ZipFile(shard, "w") as file:
        for name, data in content.items():
            file.writestr(name, data)


def swap_members(place: Path, name: str) -> None:
    one, other = shards(place)[1:3]
    in_one, in_other = members(one), members(other)
    write_members(one, in_one | {name: in_other[name]})
    write_members(other, in_other | {name: in_one[name]})


def swap_keys(place: Path) -> None:
    swap_members(place, "sha256.npy")


def swap_vectors(place: Path) -> None:
    swap_members(place, "vectors.npy")


def swap_names(place: Path) -> None:
    one, other = shards(place)[1:3]
    in_one = one.read_bytes()
    other.replace(one)
    other.write_bytes(in_one)


def swap_rows(place: Path) -> None:
    shard = shards(place)[1]
    content = members(shard)
    keys = np.load(io.BytesIO(content["sha256.npy"]))
    file = io.BytesIO()
    np.save(file, keys[::-1])
    write_members(shard, content | {"sha256.npy": file.getvalue()})


@pytest.mark.parametrize("swap", [swap_keys, swap_vectors, swap_names, swap_rows])
def test_swapped_shards_move_no_row(
    place: Path, finished: Path, swap: Callable[[Path], None]
) -> None:
    swap(place)
    assert extracted_again(place, finished) == (PASS if swap is swap_rows else 2 * PASS)


@pytest.mark.parametrize(
    ("changes", "dtype", "shape"),
    [
        ({"weights_sha256": "c" * 64}, "f4", (3,)),
        ({"dtype": "float16"}, "f2", (3,)),
        ({"encoder": "Another"}, "f4", (7,)),
        ({"pooling": "grid"}, "f4", (4, 3)),
    ],
    ids=["other weights", "other dtype", "other length", "a grid"],
)
@pytest.mark.parametrize("beside", [True, False], ids=["beside its own", "in their place"])
def test_shards_of_other_params_are_not_taken_for_its_own(
    place: Path,
    finished: Path,
    *,
    beside: bool,
    changes: dict[str, Any],
    dtype: str,
    shape: tuple[int, ...],
) -> None:
    other = ShardFolder(place / "cache", replace(ENCODING, **changes).fingerprint)
    for shard in shards(place):
        keys = [key.decode() for key in np.load(shard)["sha256"].tolist()]
        other.add(keys, np.full((len(keys), *shape), 7, dtype))
        if not beside:
            shard.unlink()
    for shard in other.folder.glob("*.npz"):
        shutil.copy(shard, shards_folder(place))
    assert extracted_again(place, finished) == (0 if beside else PHOTOS)


def shards_folder(place: Path) -> Path:
    return ShardFolder(place / "cache", ENCODING.fingerprint).folder


class Burglar:
    def __init__(self, loot: Path) -> None:
        self._loot = loot

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self._loot,)


def pickled(place: Path) -> None:
    shard = shards(place)[0]
    file = io.BytesIO()
    np.save(file, np.array([Burglar(place / "loot")] * PASS, dtype=object), allow_pickle=True)
    write_members(shard, members(shard) | {"vectors.npy": file.getvalue()})
    write_members(shard.with_name("0.npz"), members(shard) | {"sha256.npy": file.getvalue()})


def older_version(place: Path) -> None:
    for shard in shards(place):
        arrays = dict(np.load(shard))
        shard.unlink()
        np.savez(shard.with_name(f"old{shard.name}"), **arrays)


def an_empty_file(place: Path) -> None:
    (shards_folder(place) / "x.npz").touch()


def an_empty_archive(place: Path) -> None:
    write_members(shards_folder(place) / "x.npz", {})


def a_text(place: Path) -> None:
    (shards_folder(place) / "x.npz").write_text("<html>")


def a_folder(place: Path) -> None:
    (shards_folder(place) / "x.npz").mkdir()


def a_link_to_nowhere(place: Path) -> None:
    (shards_folder(place) / "x.npz").symlink_to("nowhere")


def a_copy(place: Path) -> None:
    shutil.copy(shards(place)[0], shards_folder(place) / "copy of it.npz")


def leftovers(place: Path) -> None:
    shard = shards(place)[0]
    shutil.copy(shard, shard.with_name(f".tmp-1-{shard.name}"))
    shard.with_name(f".tmp-2-{shard.name}").write_bytes(shard.read_bytes()[:100])
    store(place).with_name(".tmp-1-features.h5").write_bytes(b"\x89HDF")


@pytest.mark.parametrize(
    ("spoil", "computed"),
    [
        (pickled, PASS),
        (older_version, PHOTOS),
        (an_empty_file, 0),
        (an_empty_archive, 0),
        (a_text, 0),
        (a_folder, 0),
        (a_link_to_nowhere, 0),
        (a_copy, 0),
        (leftovers, 0),
    ],
)
def test_what_is_no_shard_is_never_a_row(
    place: Path, finished: Path, spoil: Callable[[Path], None], computed: int
) -> None:
    spoil(place)
    assert extracted_again(place, finished) == computed
    assert not (place / "loot").exists()


def test_a_shard_that_may_not_be_read_is_kept(
    place: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As with too many open files, or another's shard: it says nothing of what is in it.
    shard = shards(place)[0]
    with monkeypatch.context() as patch:
        opened = zipfile.ZipFile.__init__

        def denied(file: zipfile.ZipFile, name: Path, *arguments: object) -> None:
            if name == shard:
                raise PermissionError(13, "Permission denied", str(name))
            opened(file, name, *arguments)  # type: ignore[call-overload]

        patch.setattr(zipfile.ZipFile, "__init__", denied)
        with pytest.raises(InputError, match=r"\.npz cannot be read \(Permission denied\): make"):
            kill_points.extract(place)
    assert extracted_again(place, finished) == 0


def test_a_file_that_another_reader_finds_half_written_is_left_alone(place: Path) -> None:
    folder = ShardFolder(place / "cache", ENCODING.fingerprint)
    half = folder.folder / ".tmp-1-x.npz"
    half.write_bytes(b"PK")
    assert len(folder.index()) == PHOTOS
    assert half.exists()


# Two writers at once.


def wait_until_stopped(process: int) -> None:
    while Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.01)


@contextmanager
def stopped_in_the_middle(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start an extraction that stops while it writes, as if it took its time; in the end go on."""
    command = ["-m", "tests.kill_points", str(folder), "shard", "before rename", "2", "SIGSTOP"]
    root = Path(__file__).parents[1]
    with subprocess.Popen([sys.executable, *command], cwd=root) as process:
        try:
            wait_until_stopped(process.pid)
            yield process
        finally:
            process.send_signal(signal.SIGCONT)


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
WAIT = "wait until it ends, or end it"


@needs_proc
def test_the_second_of_two_writers_is_told_at_once_and_the_first_ends_well(
    tmp_path: Path, finished: Path
) -> None:
    draw(tmp_path)
    with stopped_in_the_middle(tmp_path) as first:
        result = run(tmp_path)
        assert result.returncode == 1
        told = rf"error: another extraction is writing to {tmp_path}/cache/features/\w+: {WAIT}\n"
        assert re.fullmatch(told, result.stderr)
    assert first.returncode == 0
    assert extracted_again(tmp_path, finished) == 0


@needs_proc
def test_a_writer_with_other_params_keeps_out_of_the_same_store(
    tmp_path: Path, finished: Path
) -> None:
    draw(tmp_path)
    other = replace(ENCODING, dtype="float16")
    told = f"another extraction is writing to {tmp_path}/artifacts: {WAIT}"
    with stopped_in_the_middle(tmp_path) as first:
        with pytest.raises(InputError, match=re.escape(told)):
            kill_points.extract(tmp_path, encoding=other)
        (tmp_path / "cache").rename(tmp_path / "old cache")
        with pytest.raises(InputError, match=re.escape(told)):
            kill_points.extract(tmp_path)
        shutil.rmtree(tmp_path / "cache")
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
    """Find the processes of a process group that run a stage."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            command = (folder / "cmdline").read_bytes().split(b"\0")
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and command[1:3] == [b"-m", b"pipeline.stages.extract"]:
                found.append(int(folder.name))
    return found


@contextmanager
def new_params(project: Project) -> Iterator[None]:
    """Ask for vectors that DVC has not seen; in the end take it back."""
    path = project.folder / "params.yaml"
    before = path.read_bytes()
    project.set({"extract": {"pooling": "grid"}, "runtime": {"batch_size": 2}})
    try:
        yield
    finally:
        path.write_bytes(before)
        project.repro()


@needs_proc
def test_a_stage_that_outlives_its_dvc_is_waited_for(project: Project, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(STOPS_ITSELF)
    photos = len(list((project.folder / "data/mine/images").iterdir()))
    with new_params(project):
        project.set({"runtime": {"cache": ".whole"}})
        extract = project.run("python", "-m", "pipeline.stages.extract")
        assert extract.forward_passes[0] == photos
        whole = project.read("artifacts/features.h5")
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
                assert line, "it ended before its first photos"
            try:
                (stage,) = stages_of(dvc.pid)
                wait_until_stopped(stage)
                dvc.kill()
                dvc.wait()
                again = project.run("dvc", "repro", "extract")
                assert again.code != 0
                told = "error: another extraction is writing to .outlived/features/"
                assert told in again.output
                os.kill(stage, signal.SIGCONT)
                # To the end of the stage.
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
