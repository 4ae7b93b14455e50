import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.features.shards import ShardFolder, gather


def key(number: int) -> str:
    return f"{number:064x}"


def vectors(*numbers: int, width: int = 6) -> npt.NDArray[np.float16]:
    return np.array([[number + column / 8 for column in range(width)] for number in numbers], "f2")


@pytest.fixture
def folder(tmp_path: Path) -> ShardFolder:
    shards = ShardFolder(tmp_path, "f" * 64)
    shards.add([key(1), key(2), key(3)], vectors(1, 2, 3))
    shards.add([key(4), key(5)], vectors(4, 5))
    return shards


def shard_of(shards: ShardFolder, number: int) -> Path:
    return shards.index()[key(number)][0]


def test_vectors_come_back_by_the_content_of_their_photo(folder: ShardFolder) -> None:
    places = folder.index()
    assert sorted(places) == [key(number) for number in range(1, 6)]
    for number in range(1, 6):
        shard, row = places[key(number)]
        keys, stored = ShardFolder.read(shard)
        assert keys[row] == key(number)
        assert stored.dtype == np.float16
        assert np.array_equal(stored[row], vectors(number)[0])


def test_grids_keep_their_shape(tmp_path: Path) -> None:
    shards = ShardFolder(tmp_path, "f" * 64)
    grid = np.arange(24, dtype="f4").reshape(2, 3, 4)
    shards.add([key(1), key(2)], grid)
    assert np.array_equal(ShardFolder.read(shard_of(shards, 1))[1], grid)


def test_nothing_is_made_before_something_is_kept(tmp_path: Path) -> None:
    assert ShardFolder(tmp_path, "f" * 64).index() == {}
    assert list(tmp_path.iterdir()) == []


def test_each_encoding_has_its_folder(tmp_path: Path) -> None:
    ShardFolder(tmp_path, "a" * 64).add([key(1)], vectors(1))
    assert ShardFolder(tmp_path, "b" * 64).index() == {}
    assert list(ShardFolder(tmp_path, "a" * 64).index()) == [key(1)]


def test_equal_batches_are_one_file_of_equal_bytes(folder: ShardFolder) -> None:
    before = {path: path.read_bytes() for path in folder.folder.iterdir()}
    folder.add([key(4), key(5)], vectors(4, 5))
    assert {path: path.read_bytes() for path in folder.folder.iterdir()} == before


def test_positions_are_filled_shard_by_shard(folder: ShardFolder) -> None:
    wanted = [5, 1, 4, 3, 1]
    filled = np.full((5, 6), np.nan, np.float16)
    shards = 0
    for positions, rows in gather(folder.index(), [key(number) for number in wanted]):
        filled[positions] = rows
        shards += 1
    assert np.array_equal(filled, vectors(*wanted))
    assert shards == 2


def test_one_photo_in_two_shards_has_one_vector(folder: ShardFolder) -> None:
    folder.add([key(3), key(4)], vectors(3, 4))
    places = folder.index()
    assert len(places) == 5
    ((positions, rows),) = gather(places, [key(3)])
    assert positions == [0]
    assert np.array_equal(rows, vectors(3))


def dropped(folder: ShardFolder, shard: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Check that the shard of 4 and 5 is dropped and the other stays; return what was said."""
    assert sorted(folder.index()) == [key(1), key(2), key(3)]
    assert not shard.exists()
    said = capsys.readouterr().out
    assert str(shard) in said
    assert said.count("its photos are computed again") == 1
    return said


@pytest.mark.parametrize("length", [0, 10, 200, -1])
def test_a_truncated_shard_is_dropped(
    folder: ShardFolder, length: int, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = shard_of(folder, 4)
    shard.write_bytes(shard.read_bytes()[:length])
    assert "is damaged" in dropped(folder, shard, capsys)


def test_a_flipped_bit_is_never_read_as_another_vector(folder: ShardFolder) -> None:
    shard = shard_of(folder, 4)
    good = shard.read_bytes()
    kept = 0
    for place in range(0, len(good), 3):
        damaged = bytearray(good)
        damaged[place] ^= 1 << place % 8
        shard.write_bytes(damaged)
        if key(4) in folder.index():
            keys, stored = ShardFolder.read(shard)
            assert keys == [key(4), key(5)]
            assert np.array_equal(stored, vectors(4, 5))
            kept += 1
        else:
            assert not shard.exists()
    assert kept < len(good) / 3 / 2  # dates and such in the zip's own headers


def test_a_damaged_header_never_moves_the_rows(tmp_path: Path) -> None:
    # NumPy reads no more than a header promises, and so may never come to the checksum.
    shards = ShardFolder(tmp_path, "f" * 64)
    shards.add([key(number) for number in range(12)], vectors(*range(12), width=2048))
    shard = shard_of(shards, 1)
    data = shard.read_bytes()
    shard.write_bytes(data.replace(b"(12, 2048)", b"(12, 2040)"))
    assert shard.read_bytes() != data
    assert shards.index() == {}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_shard_with_numbers_that_are_none_is_dropped(
    folder: ShardFolder, value: float, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = shard_of(folder, 4)
    folder.add([key(4), key(5)], np.array([[1, value], [1, 1]], "f2"))
    assert "do not fit" in dropped(folder, shard, capsys)


def test_a_shard_with_more_vectors_than_photos_is_dropped(
    folder: ShardFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = shard_of(folder, 4)
    folder.add([key(4), key(5)], vectors(4, 5, 6))
    assert "do not fit" in dropped(folder, shard, capsys)


def array_file(array: npt.NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


class Burglar:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('unpickled')",)


def test_nothing_is_ever_unpickled(folder: ShardFolder, capsys: pytest.CaptureFixture[str]) -> None:
    shard = shard_of(folder, 4)
    loot = np.array([Burglar(), Burglar()], dtype=object)
    with zipfile.ZipFile(shard, "w") as members:
        members.writestr("sha256.npy", array_file(np.array([key(4), key(5)], "S64")))
        members.writestr("vectors.npy", array_file(loot))
    assert "allow_pickle=False" in dropped(folder, shard, capsys)
    shard.write_bytes(pickle.dumps(Burglar()))
    dropped(folder, shard, capsys)


def test_a_shard_without_one_of_its_arrays_is_dropped(
    folder: ShardFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = shard_of(folder, 4)
    with zipfile.ZipFile(shard, "w") as members:
        members.writestr("vectors.npy", array_file(vectors(4, 5)))
    dropped(folder, shard, capsys)


def test_what_a_killed_writer_left_is_used_if_whole_and_dropped_if_not(
    folder: ShardFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = shard_of(folder, 4)
    left = shard.with_name(f".tmp-1-{shard.name}")
    shard.rename(left)
    assert key(4) in folder.index()
    left.write_bytes(left.read_bytes()[:100])
    dropped(folder, left, capsys)
