"""Damaged shards, and files that are not shards.

Each is repaired, or ends in one line that names the fix; no row is ever wrong.
"""

import io
import random
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.features.shard_cache import ShardCache
from tests.support import kill_points
from tests.support.kill_points import FEATURE_SPEC, PASS
from tests.support.small_extraction import (
    PHOTOS,
    extracted_again,
    shards,
    store,
)


def test_a_shard_truncated_anywhere_is_computed_again(damageable: Path, finished: Path) -> None:
    shard = shards(damageable)[2]
    good = shard.read_bytes()
    for length in range(0, len(good), 29):
        shard.write_bytes(good[:length])
        assert extracted_again(damageable, finished) == PASS
        assert shard.read_bytes() == good


def test_a_tail_of_zeros_after_a_power_cut_is_computed_again(
    damageable: Path, finished: Path
) -> None:
    shard = shards(damageable)[2]
    good = shard.read_bytes()
    for length in range(0, len(good), 29):
        shard.write_bytes(good[:length].ljust(len(good), b"\0"))
        assert extracted_again(damageable, finished) == PASS


def test_a_flipped_bit_anywhere_is_computed_again_or_changes_nothing(
    damageable: Path, finished: Path
) -> None:
    shard = shards(damageable)[2]
    good = shard.read_bytes()
    rng = random.Random(0)
    computed = []
    for byte in rng.sample(range(len(good)), 150):
        damaged = bytearray(good)
        damaged[byte] ^= 1 << rng.randrange(8)
        shard.write_bytes(damaged)
        computed.append(extracted_again(damageable, finished))
        shard.write_bytes(good)
    assert set(computed) == {0, PASS}
    assert computed.count(PASS) > len(computed) / 2


def test_any_number_of_damaged_shards_is_repaired_in_one_run(
    damageable: Path, finished: Path
) -> None:
    for shard in shards(damageable):
        data = bytearray(shard.read_bytes())
        data[data.index(b"NUMPY", data.index(b"vectors")) + 128] ^= 1
        shard.write_bytes(data)
    assert extracted_again(damageable, finished) == PHOTOS


def test_a_disk_that_damages_every_shard_is_an_error(
    damageable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = ShardCache.add

    def add_and_damage(cache: ShardCache, *arguments: object) -> None:
        add(cache, *arguments)  # type: ignore[arg-type]
        for shard in cache.folder.glob("*.npz"):
            shard.write_bytes(shard.read_bytes()[:-60])

    monkeypatch.setattr(ShardCache, "add", add_and_damage)
    for shard in shards(damageable):
        shard.unlink()
    with pytest.raises(InputError, match=r"was found damaged 3 times: check that disk"):
        kill_points.extract(damageable)


def members(shard: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(shard) as file:
        return {name: file.read(name) for name in file.namelist()}


def write_members(shard: Path, content: dict[str, bytes]) -> None:
    with zipfile.ZipFile(shard, "w") as file:
        for name, data in content.items():
            file.writestr(name, data)


def swap_members(damageable: Path, name: str) -> None:
    first, second = shards(damageable)[1:3]
    first_members, second_members = members(first), members(second)
    write_members(first, first_members | {name: second_members[name]})
    write_members(second, second_members | {name: first_members[name]})


def swap_keys(damageable: Path) -> None:
    swap_members(damageable, "sha256.npy")


def swap_vectors(damageable: Path) -> None:
    swap_members(damageable, "vectors.npy")


def swap_names(damageable: Path) -> None:
    first, second = shards(damageable)[1:3]
    content = first.read_bytes()
    second.replace(first)
    second.write_bytes(content)


def swap_rows(damageable: Path) -> None:
    shard = shards(damageable)[1]
    content = members(shard)
    keys = np.load(io.BytesIO(content["sha256.npy"]))
    file = io.BytesIO()
    np.save(file, keys[::-1])
    write_members(shard, content | {"sha256.npy": file.getvalue()})


@pytest.mark.parametrize("swap", [swap_keys, swap_vectors, swap_names, swap_rows])
def test_swapped_shards_shift_no_row(
    damageable: Path, finished: Path, swap: Callable[[Path], None]
) -> None:
    swap(damageable)
    assert extracted_again(damageable, finished) == (PASS if swap is swap_rows else 2 * PASS)


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
@pytest.mark.parametrize("in_addition", [True, False], ids=["in addition", "in their place"])
def test_shards_of_other_params_are_not_used(
    damageable: Path,
    finished: Path,
    *,
    in_addition: bool,
    changes: dict[str, Any],
    dtype: str,
    shape: tuple[int, ...],
) -> None:
    other = ShardCache(damageable / "cache", replace(FEATURE_SPEC, **changes).fingerprint)
    for shard in shards(damageable):
        keys = [key.decode() for key in np.load(shard)["sha256"].tolist()]
        other.add(keys, np.full((len(keys), *shape), 7, dtype))
        if not in_addition:
            shard.unlink()
    for shard in other.folder.glob("*.npz"):
        shutil.copy(shard, shards_folder(damageable))
    assert extracted_again(damageable, finished) == (0 if in_addition else PHOTOS)


def shards_folder(damageable: Path) -> Path:
    return ShardCache(damageable / "cache", FEATURE_SPEC.fingerprint).folder


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, created: Path) -> None:
        self._created = created

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self._created,)


def pickled(damageable: Path) -> None:
    shard = shards(damageable)[0]
    file = io.BytesIO()
    np.save(
        file,
        np.array([Malicious(damageable / "unpickled")] * PASS, dtype=object),
        allow_pickle=True,
    )
    write_members(shard, members(shard) | {"vectors.npy": file.getvalue()})
    write_members(shard.with_name("0.npz"), members(shard) | {"sha256.npy": file.getvalue()})


def older_version(damageable: Path) -> None:
    for shard in shards(damageable):
        arrays = dict(np.load(shard))
        shard.unlink()
        np.savez(shard.with_name(f"old{shard.name}"), **arrays)


def an_empty_file(damageable: Path) -> None:
    (shards_folder(damageable) / "x.npz").touch()


def an_empty_archive(damageable: Path) -> None:
    write_members(shards_folder(damageable) / "x.npz", {})


def a_text(damageable: Path) -> None:
    (shards_folder(damageable) / "x.npz").write_text("<html>")


def a_folder(damageable: Path) -> None:
    (shards_folder(damageable) / "x.npz").mkdir()


def a_link_to_nowhere(damageable: Path) -> None:
    (shards_folder(damageable) / "x.npz").symlink_to("nowhere")


def a_copy(damageable: Path) -> None:
    shutil.copy(shards(damageable)[0], shards_folder(damageable) / "copy of it.npz")


def leftovers(damageable: Path) -> None:
    shard = shards(damageable)[0]
    shutil.copy(shard, shard.with_name(f".tmp-1-{shard.name}"))
    shard.with_name(f".tmp-2-{shard.name}").write_bytes(shard.read_bytes()[:100])
    store(damageable).with_name(".tmp-1-features.h5").write_bytes(b"\x89HDF")


@pytest.mark.parametrize(
    ("damage", "computed"),
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
def test_a_file_that_is_not_a_shard_is_never_a_row(
    damageable: Path, finished: Path, damage: Callable[[Path], None], computed: int
) -> None:
    damage(damageable)
    assert extracted_again(damageable, finished) == computed
    assert not (damageable / "unpickled").exists()


def test_a_shard_without_read_permission_is_kept(
    damageable: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Like too many open files: the error does not mean that the shard is damaged.
    shard = shards(damageable)[0]
    with monkeypatch.context() as patch:
        original_init = zipfile.ZipFile.__init__

        def denied(file: zipfile.ZipFile, name: Path, *arguments: object) -> None:
            if name == shard:
                raise PermissionError(13, "Permission denied", str(name))
            original_init(file, name, *arguments)  # type: ignore[call-overload]

        patch.setattr(zipfile.ZipFile, "__init__", denied)
        with pytest.raises(InputError, match=r"\.npz cannot be read \(Permission denied\): make"):
            kill_points.extract(damageable)
    assert extracted_again(damageable, finished) == 0


def test_another_reader_leaves_a_half_written_file_alone(damageable: Path) -> None:
    cache = ShardCache(damageable / "cache", FEATURE_SPEC.fingerprint)
    half_written = cache.folder / ".tmp-1-x.npz"
    half_written.write_bytes(b"PK")
    assert len(cache.index()) == PHOTOS
    assert half_written.exists()
