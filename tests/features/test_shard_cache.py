import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.features.shard_cache import (
    DamagedShardError,
    ShardCache,
    read_vectors,
    remove_damaged_shards,
)


def key(number: int) -> str:
    return f"{number:064x}"


def vectors(*numbers: int, width: int = 6) -> npt.NDArray[np.float16]:
    return np.array([[number + column / 8 for column in range(width)] for number in numbers], "f2")


@pytest.fixture
def cache(tmp_path: Path) -> ShardCache:
    cache = ShardCache(tmp_path, "f" * 64)
    cache.add([key(1), key(2), key(3)], vectors(1, 2, 3))
    cache.add([key(4), key(5)], vectors(4, 5))
    return cache


def read(cache: ShardCache, *numbers: int) -> npt.NDArray[np.float16]:
    """Read the vectors of photos, in the order of `numbers`."""
    by_position: dict[int, npt.NDArray[np.float16]] = {}
    for positions, rows in read_vectors(cache.index(), [key(number) for number in numbers]):
        by_position |= dict(zip(positions, rows, strict=True))
    return np.stack([by_position[position] for position in range(len(numbers))])


def shard_of(cache: ShardCache, number: int) -> Path:
    return cache.index()[key(number)][0]


def test_vectors_are_read_by_their_photos_digest(cache: ShardCache) -> None:
    locations = cache.index()
    assert sorted(locations) == [key(number) for number in range(1, 6)]
    for number in range(1, 6):
        assert np.array_equal(read(cache, number), vectors(number))
    assert read(cache, 1).dtype == np.float16


def test_grids_keep_their_shape(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, "f" * 64)
    grid = np.arange(24, dtype="f4").reshape(2, 3, 4)
    cache.add([key(1), key(2)], grid)
    assert np.array_equal(read(cache, 1, 2), grid)


def test_nothing_is_created_before_the_first_shard(tmp_path: Path) -> None:
    assert ShardCache(tmp_path, "f" * 64).index() == {}
    assert list(tmp_path.iterdir()) == []


def test_each_spec_has_its_own_folder(tmp_path: Path) -> None:
    ShardCache(tmp_path, "a" * 64).add([key(1)], vectors(1))
    assert ShardCache(tmp_path, "b" * 64).index() == {}
    assert list(ShardCache(tmp_path, "a" * 64).index()) == [key(1)]


def test_writing_a_batch_again_gives_the_same_file(cache: ShardCache) -> None:
    files = {path: path.read_bytes() for path in cache.folder.iterdir()}
    cache.add([key(4), key(5)], vectors(4, 5))
    assert {path: path.read_bytes() for path in cache.folder.iterdir()} == files


def test_each_shard_is_read_once(cache: ShardCache) -> None:
    numbers = [5, 1, 4, 3, 1]
    filled = np.full((5, 6), np.nan, np.float16)
    shards = 0
    for positions, rows in read_vectors(cache.index(), [key(number) for number in numbers]):
        filled[positions] = rows
        shards += 1
    assert np.array_equal(filled, vectors(*numbers))
    assert shards == 2


def test_a_photo_in_two_shards_has_one_vector(cache: ShardCache) -> None:
    cache.add([key(3), key(4)], vectors(3, 4))
    locations = cache.index()
    assert len(locations) == 5
    ((positions, rows),) = read_vectors(locations, [key(3)])
    assert positions == [0]
    assert np.array_equal(rows, vectors(3))


def test_the_index_does_not_read_the_vectors(cache: ShardCache) -> None:
    locations = cache.index()
    shard = shard_of(cache, 4)
    shard.write_bytes(shard.read_bytes().replace(vectors(4).tobytes(), bytes(12)))
    assert cache.index() == locations
    with pytest.raises(DamagedShardError, match="Bad CRC"):
        read(cache, 4)


def removed(cache: ShardCache, shard: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Check that the shard of 4 and 5 is removed and the other one is not; return the output."""
    assert sorted(cache.index()) == [key(1), key(2), key(3)]
    assert not shard.exists()
    output = capsys.readouterr().out
    assert str(shard) in output
    assert output.count("its photos are encoded again") == 1
    return output


def removed_when_read(cache: ShardCache, shard: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Check the same for a shard whose keys are undamaged; return the output."""
    assert key(4) in cache.index()
    with pytest.raises(DamagedShardError) as caught:
        read(cache, 1, 4)
    assert shard.exists()
    assert capsys.readouterr().out == ""
    caught.value.remove_shard()
    caught.value.remove_shard()  # another process may have removed it already
    lines = capsys.readouterr().out.splitlines()
    assert len(set(lines)) == 1
    assert sorted(cache.index()) == [key(1), key(2), key(3)]
    return lines[0]


@pytest.mark.parametrize("length", [0, 10, 200, -1])
def test_a_truncated_shard_is_removed(
    cache: ShardCache, length: int, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = shard_of(cache, 4)
    shard.write_bytes(shard.read_bytes()[:length])
    assert "is damaged" in removed(cache, shard, capsys)


def test_a_flipped_bit_is_never_read_as_another_vector(cache: ShardCache) -> None:
    shard = shard_of(cache, 4)
    good = shard.read_bytes()
    outcomes = {"removed by the index": 0, "removed when read": 0, "read": 0}
    for offset in range(0, len(good), 3):
        damaged = bytearray(good)
        damaged[offset] ^= 1 << offset % 8
        shard.write_bytes(damaged)
        if key(4) not in cache.index():
            assert not shard.exists()
            outcomes["removed by the index"] += 1
            continue
        try:
            assert np.array_equal(read(cache, 4, 5), vectors(4, 5))
            outcomes["read"] += 1
        except DamagedShardError as error:
            error.remove_shard()
            outcomes["removed when read"] += 1
    assert all(outcomes.values())
    assert outcomes["read"] < len(good) / 3 / 2  # unused fields of the zip format, such as dates


def test_a_damaged_array_header_never_shifts_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # NumPy reads as many bytes as the header says, so the checksum at the end may go unread.
    cache = ShardCache(tmp_path, "f" * 64)
    cache.add([key(1), key(2), key(3)], vectors(1, 2, 3))
    cache.add([key(number) for number in range(4, 16)], vectors(*range(4, 16), width=2048))
    shard = shard_of(cache, 4)
    data = shard.read_bytes()
    shard.write_bytes(data.replace(b"(12, 2048)", b"(12, 2040)"))
    assert shard.read_bytes() != data
    assert "Bad CRC" in removed_when_read(cache, shard, capsys)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_shard_with_nan_or_infinity_is_removed(
    cache: ShardCache, value: float, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = shard_of(cache, 4)
    cache.add([key(4), key(5)], np.array([[1, value], [1, 1]], "f2"))
    assert "do not match" in removed_when_read(cache, shard, capsys)


def test_a_vector_of_zeros_is_damage(cache: ShardCache, capsys: pytest.CaptureFixture[str]) -> None:
    shard = shard_of(cache, 4)
    cache.add([key(4), key(5)], np.array([[0, 0], [1, 1]], "f2"))
    assert "a vector is all zeros" in removed_when_read(cache, shard, capsys)


@pytest.mark.parametrize(
    "other", [vectors(4, 5, width=7), vectors(4, 5).astype("f8"), np.ones((2, 2, 6), "f2")]
)
def test_of_shards_that_differ_in_form_most_photos_decide(
    cache: ShardCache, other: npt.NDArray[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    cache.add([key(4), key(5)], other)
    locations = cache.index()
    keys = [key(number) for number in (4, 1, 2, 3)]
    with pytest.raises(DamagedShardError):
        list(read_vectors(locations, keys))
    remove_damaged_shards(locations, keys)
    assert "have another type or shape" in removed(cache, locations[key(4)][0], capsys)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX only")
def test_a_pipe_is_no_shard(cache: ShardCache) -> None:
    os.mkfifo(cache.folder / "pipe.npz")
    assert len(cache.index()) == 5


def test_a_shard_that_claims_to_be_huge_takes_no_memory(
    cache: ShardCache, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = shard_of(cache, 4)
    huge = npy_bytes(vectors(4, 5)).replace(b"(2, 6), ", b"(2, %d)," % 10**9)
    with zipfile.ZipFile(shard, "w") as members:
        members.writestr("sha256.npy", npy_bytes(KEYS))
        members.writestr("vectors.npy", huge.replace(b"     \n", b"\n"))
    removed_when_read(cache, shard, capsys)
    with zipfile.ZipFile(shard, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr("sha256.npy", npy_bytes(KEYS))
        members.writestr("vectors.npy", bytes(1 << 22))
    assert "claims to be larger" in removed_when_read(cache, shard, capsys)


def npy_bytes(array: npt.NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def write_shard(shard: Path, **arrays: npt.NDArray[np.generic]) -> None:
    with zipfile.ZipFile(shard, "w") as members:
        for name, array in arrays.items():
            members.writestr(f"{name}.npy", npy_bytes(array))


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
def test_a_shard_with_other_vectors_is_removed(
    cache: ShardCache, other: npt.NDArray[np.generic], capsys: pytest.CaptureFixture[str]
) -> None:
    shard = shard_of(cache, 4)
    write_shard(shard, sha256=KEYS, vectors=other)
    assert "do not match" in removed_when_read(cache, shard, capsys)


@pytest.mark.parametrize(
    "other",
    [np.array([4, 5]), KEYS.astype("U"), KEYS.reshape(1, 2), KEYS[0], np.array([b"\xff", b"5"])],
    ids=["integers", "text", "two dimensions", "one key", "no ASCII"],
)
def test_a_shard_with_other_keys_is_removed(
    cache: ShardCache, other: npt.NDArray[np.generic], capsys: pytest.CaptureFixture[str]
) -> None:
    shard = shard_of(cache, 4)
    write_shard(shard, sha256=np.asarray(other), vectors=vectors(4, 5))
    removed(cache, shard, capsys)


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('unpickled')",)


def test_nothing_is_ever_unpickled(cache: ShardCache, capsys: pytest.CaptureFixture[str]) -> None:
    shard = shard_of(cache, 4)
    pickled = np.array([Malicious(), Malicious()], dtype=object)
    write_shard(shard, sha256=KEYS, vectors=pickled)
    assert "allow_pickle=False" in removed_when_read(cache, shard, capsys)
    write_shard(shard, sha256=pickled, vectors=vectors(4, 5))
    assert "allow_pickle=False" in removed(cache, shard, capsys)
    shard.write_bytes(pickle.dumps(Malicious()))
    removed(cache, shard, capsys)


def test_a_shard_without_one_of_its_arrays_is_removed(
    cache: ShardCache, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = shard_of(cache, 4)
    write_shard(shard, vectors=vectors(4, 5))
    removed(cache, shard, capsys)
    write_shard(shard, sha256=KEYS)
    removed_when_read(cache, shard, capsys)


def test_a_temporary_file_is_neither_read_nor_removed(
    cache: ShardCache, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = shard_of(cache, 4)
    temporary = shard.with_name(f".tmp-1-{shard.name}")
    shard.rename(temporary)
    assert key(4) not in cache.index()
    temporary.write_bytes(temporary.read_bytes()[:100])
    assert key(4) not in cache.index()
    assert temporary.exists()
    assert capsys.readouterr().out == ""


def test_a_shard_with_another_name_or_of_another_spec_is_removed(
    cache: ShardCache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = shard_of(cache, 4)
    renamed = shard.rename(shard.with_name(f"{'0' * 32}.npz"))
    assert "belongs to other photos or another encoder" in removed(cache, renamed, capsys)
    other = ShardCache(tmp_path, "a" * 64)
    other.add([key(4), key(5)], vectors(8, 9))
    (moved,) = other.folder.iterdir()
    moved = moved.rename(cache.folder / moved.name)
    assert "belongs to other photos or another encoder" in removed(cache, moved, capsys)


def test_a_shard_with_the_vectors_of_another_is_removed(
    cache: ShardCache, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = shard_of(cache, 4)
    write_shard(shard, sha256=KEYS, vectors=vectors(8, 9))
    assert "its vectors belong to another shard" in removed_when_read(cache, shard, capsys)


def test_all_damaged_shards_are_removed_at_once(
    cache: ShardCache, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.add([key(6)], vectors(6))
    locations = cache.index()
    for number in (1, 4):
        write_shard(locations[key(number)][0], sha256=KEYS, vectors=vectors(8, 9))
    remove_damaged_shards(locations, [key(number) for number in (6, 4, 1)])
    assert capsys.readouterr().out.count("its photos are encoded again") == 2
    assert list(cache.index()) == [key(6)]
