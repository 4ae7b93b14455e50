import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.features.shard_cache import DamagedShardError, ShardFolder, drop_damaged, gather


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


def gathered(shards: ShardFolder, *numbers: int) -> npt.NDArray[np.float16]:
    """Gather vectors, in the order asked for."""
    found: dict[int, npt.NDArray[np.float16]] = {}
    for positions, rows in gather(shards.index(), [key(number) for number in numbers]):
        found |= dict(zip(positions, rows, strict=True))
    return np.stack([found[position] for position in range(len(numbers))])


def shard_of(shards: ShardFolder, number: int) -> Path:
    return shards.index()[key(number)][0]


def test_vectors_come_back_by_the_content_of_their_photo(folder: ShardFolder) -> None:
    places = folder.index()
    assert sorted(places) == [key(number) for number in range(1, 6)]
    for number in range(1, 6):
        assert np.array_equal(gathered(folder, number), vectors(number))
    assert gathered(folder, 1).dtype == np.float16


def test_grids_keep_their_shape(tmp_path: Path) -> None:
    shards = ShardFolder(tmp_path, "f" * 64)
    grid = np.arange(24, dtype="f4").reshape(2, 3, 4)
    shards.add([key(1), key(2)], grid)
    assert np.array_equal(gathered(shards, 1, 2), grid)


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


def test_where_vectors_are_is_found_out_without_reading_them(folder: ShardFolder) -> None:
    before = folder.index()
    shard = shard_of(folder, 4)
    shard.write_bytes(shard.read_bytes().replace(vectors(4).tobytes(), bytes(12)))
    assert folder.index() == before
    with pytest.raises(DamagedShardError, match="Bad CRC"):
        gathered(folder, 4)


def dropped(folder: ShardFolder, shard: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Check that the shard of 4 and 5 is dropped and the other stays; return what was said."""
    assert sorted(folder.index()) == [key(1), key(2), key(3)]
    assert not shard.exists()
    said = capsys.readouterr().out
    assert str(shard) in said
    assert said.count("its photos are computed again") == 1
    return said


def dropped_when_read(folder: ShardFolder, shard: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Check the same of a shard whose keys are as they were; return what was said."""
    assert key(4) in folder.index()
    with pytest.raises(DamagedShardError) as caught:
        gathered(folder, 1, 4)
    assert shard.exists()
    assert capsys.readouterr().out == ""
    caught.value.drop()
    caught.value.drop()  # another process may have done it
    said = capsys.readouterr().out.splitlines()
    assert len(set(said)) == 1
    assert sorted(folder.index()) == [key(1), key(2), key(3)]
    return said[0]


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
    ends = {"dropped by its keys": 0, "dropped when read": 0, "read": 0}
    for place in range(0, len(good), 3):
        damaged = bytearray(good)
        damaged[place] ^= 1 << place % 8
        shard.write_bytes(damaged)
        if key(4) not in folder.index():
            assert not shard.exists()
            ends["dropped by its keys"] += 1
            continue
        try:
            assert np.array_equal(gathered(folder, 4, 5), vectors(4, 5))
            ends["read"] += 1
        except DamagedShardError as error:
            error.drop()
            ends["dropped when read"] += 1
    assert all(ends.values())
    assert ends["read"] < len(good) / 3 / 2  # dates and such in the zip's own headers


def test_a_damaged_header_never_moves_the_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # NumPy reads no more than a header promises, and so may never come to the checksum.
    shards = ShardFolder(tmp_path, "f" * 64)
    shards.add([key(1), key(2), key(3)], vectors(1, 2, 3))
    shards.add([key(number) for number in range(4, 16)], vectors(*range(4, 16), width=2048))
    shard = shard_of(shards, 4)
    data = shard.read_bytes()
    shard.write_bytes(data.replace(b"(12, 2048)", b"(12, 2040)"))
    assert shard.read_bytes() != data
    assert "Bad CRC" in dropped_when_read(shards, shard, capsys)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_shard_with_numbers_that_are_none_is_dropped(
    folder: ShardFolder, value: float, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = shard_of(folder, 4)
    folder.add([key(4), key(5)], np.array([[1, value], [1, 1]], "f2"))
    assert "do not fit" in dropped_when_read(folder, shard, capsys)


def array_file(array: npt.NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def write_shard(shard: Path, **arrays: npt.NDArray[np.generic]) -> None:
    with zipfile.ZipFile(shard, "w") as members:
        for name, array in arrays.items():
            members.writestr(f"{name}.npy", array_file(array))


KEYS = np.array([key(4), key(5)], "S64")


@pytest.mark.parametrize(
    "other",
    [
        vectors(4, 5, 6),
        vectors(4),
        np.array(1, "f2"),
        np.array([1, 2]),
        np.array(["one", "two"]),
        np.array([b"one", b"two"]),
    ],
    ids=["more", "fewer", "a number", "integers", "text", "bytes"],
)
def test_a_shard_of_other_vectors_is_dropped(
    folder: ShardFolder, other: npt.NDArray[np.generic], capsys: pytest.CaptureFixture[str]
) -> None:
    shard = shard_of(folder, 4)
    write_shard(shard, sha256=KEYS, vectors=other)
    assert "do not fit" in dropped_when_read(folder, shard, capsys)


@pytest.mark.parametrize(
    "other",
    [np.array([4, 5]), KEYS.astype("U"), KEYS.reshape(1, 2), KEYS[0], np.array([b"\xff", b"5"])],
    ids=["integers", "text", "two dimensions", "one key", "no ASCII"],
)
def test_a_shard_of_other_keys_is_dropped(
    folder: ShardFolder, other: npt.NDArray[np.generic], capsys: pytest.CaptureFixture[str]
) -> None:
    shard = shard_of(folder, 4)
    write_shard(shard, sha256=np.asarray(other), vectors=vectors(4, 5))
    dropped(folder, shard, capsys)


class Burglar:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('unpickled')",)


def test_nothing_is_ever_unpickled(folder: ShardFolder, capsys: pytest.CaptureFixture[str]) -> None:
    shard = shard_of(folder, 4)
    loot = np.array([Burglar(), Burglar()], dtype=object)
    write_shard(shard, sha256=KEYS, vectors=loot)
    assert "allow_pickle=False" in dropped_when_read(folder, shard, capsys)
    write_shard(shard, sha256=loot, vectors=vectors(4, 5))
    assert "allow_pickle=False" in dropped(folder, shard, capsys)
    shard.write_bytes(pickle.dumps(Burglar()))
    dropped(folder, shard, capsys)


def test_a_shard_without_one_of_its_arrays_is_dropped(
    folder: ShardFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = shard_of(folder, 4)
    write_shard(shard, vectors=vectors(4, 5))
    dropped(folder, shard, capsys)
    write_shard(shard, sha256=KEYS)
    dropped_when_read(folder, shard, capsys)


def test_what_is_still_being_written_is_neither_read_nor_removed(
    folder: ShardFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = shard_of(folder, 4)
    left = shard.with_name(f".tmp-1-{shard.name}")
    shard.rename(left)
    assert key(4) not in folder.index()
    left.write_bytes(left.read_bytes()[:100])
    assert key(4) not in folder.index()
    assert left.exists()
    assert capsys.readouterr().out == ""


def test_a_shard_of_another_name_or_another_encoding_is_dropped(
    folder: ShardFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = shard_of(folder, 4)
    renamed = shard.rename(shard.with_name(f"{'0' * 32}.npz"))
    assert "of other photos or another encoder" in dropped(folder, renamed, capsys)
    other = ShardFolder(tmp_path, "a" * 64)
    other.add([key(4), key(5)], vectors(8, 9))
    (moved,) = other.folder.iterdir()
    moved = moved.rename(folder.folder / moved.name)
    assert "of other photos or another encoder" in dropped(folder, moved, capsys)


def test_a_shard_with_the_vectors_of_another_is_dropped(
    folder: ShardFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = shard_of(folder, 4)
    write_shard(shard, sha256=KEYS, vectors=vectors(8, 9))
    assert "its vectors are not its own" in dropped_when_read(folder, shard, capsys)


def test_all_damaged_shards_are_dropped_at_once(
    folder: ShardFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.add([key(6)], vectors(6))
    places = folder.index()
    for number in (1, 4):
        write_shard(places[key(number)][0], sha256=KEYS, vectors=vectors(8, 9))
    drop_damaged(places, [key(number) for number in (6, 4, 1)])
    assert capsys.readouterr().out.count("its photos are computed again") == 2
    assert list(folder.index()) == [key(6)]
