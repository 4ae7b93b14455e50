import errno
import functools
import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.features.encoders.engines import Engine, Pixels, Vectors
from pipeline.features.executors.ray_worker import Work, Worker, batches, load_row, package_versions
from pipeline.features.photos import decode
from pipeline.features.shard_cache import ShardFolder, gather
from tests.conftest import ENCODING
from tests.support.cluster import Colours, Place, colours


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.drawn(tmp_path)


@pytest.fixture
def work(place: Place) -> Work:
    shards = ShardFolder(place.folder / "cache", ENCODING.fingerprint)
    shards.folder.mkdir(parents=True)
    mark = shards.folder / ".tmp-0-mark"
    mark.touch()
    return Work(
        make_engine=functools.partial(colours, place.log),
        input_size=32,
        views="whole",
        max_pixels=10_000,
        dtype="float32",
        shards=shards,
        mark=mark,
        cores=1,
        environment={},
        packages=package_versions(),
    )


def batch_of(*paths: Path) -> dict[str, str]:
    """Return a row with a batch of photos, each named by its content as always."""
    photos = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in paths}
    (batch,) = batches(photos, len(photos))
    return {"batch": batch}


def answer(work: Work, row: dict[str, Any]) -> dict[str, Any]:
    answered = json.loads(Worker(work)(row)["answer"])
    assert isinstance(answered, dict)
    return answered


def test_a_worker_keeps_its_batch_and_tells_what_failed(work: Work, place: Place) -> None:
    paths = [place.root / name for name in ("02.png", "03.png", "04.png")]
    told = answer(work, batch_of(*paths))
    assert list(told["failed"].values()) == ["not a JPEG, PNG or WebP image"]
    assert (told["photos"], told["passes"], told["died"]) == (3, 1, 0)
    assert len(work.shards.index()) == 2
    assert list(work.shards.folder.glob(".tmp-*")) == [work.mark]


def test_a_batch_of_nothing_usable_costs_no_pass(work: Work, place: Place) -> None:
    told = answer(work, batch_of(place.root / "03.png", place.root / "11.png"))
    assert (told["photos"], told["passes"], len(told["failed"])) == (2, 0, 2)
    assert work.shards.index() == {}


def test_beside_gpus_a_worker_does_the_same(work: Work, place: Place) -> None:
    row = batch_of(place.root / "02.png", place.root / "03.png", place.root / "04.png")
    told = answer(work, row)
    (shard,) = work.shards.folder.glob("*.npz")
    before = shard.read_bytes()
    shard.unlink()
    beside = answer(work, load_row(row, work))
    assert beside["failed"] == told["failed"]
    assert shard.read_bytes() == before


@pytest.mark.parametrize("beside_gpus", [False, True])
def test_a_worker_keeps_all_views_of_a_photo(work: Work, place: Place, beside_gpus: bool) -> None:
    good = place.root / "02.png"
    work = replace(work, views="mirror")
    row = batch_of(good, place.root / "03.png")
    told = answer(work, load_row(row, work) if beside_gpus else row)
    assert (told["photos"], told["passes"], len(told["failed"])) == (2, 1, 1)
    index = work.shards.index()
    ((_, vectors),) = gather(index, list(index))
    expected = decode(good.read_bytes(), 32, 10_000, "mirror").mean(axis=(1, 2))
    np.testing.assert_allclose(vectors, expected[None], rtol=1e-5)


def test_a_name_that_is_no_unicode_is_found(work: Work, place: Place) -> None:
    odd = place.root / os.fsdecode(b"\xff.png")
    (place.root / "02.png").rename(odd)
    assert answer(work, batch_of(odd))["failed"] == {}


def test_a_photo_that_kills_every_worker_is_told(work: Work, place: Place) -> None:
    class Dies(Colours):
        def encode(self, _: Pixels) -> Vectors:
            raise SystemExit

    row = batch_of(place.root / "02.png", place.root / "04.png")
    dying = replace(work, make_engine=lambda _: Dies(place.log))
    for _ in range(3):
        with pytest.raises(SystemExit):
            Worker(dying)(row)
    assert answer(work, row)["died"] == 3
    for _ in range(4):
        with pytest.raises(SystemExit):
            Worker(dying)(row)
    words = rf"4 workers died at the 2 photos from {place.root / '02.png'} on: take out "
    assert answer(dying, row)["input_error"].startswith(words)


def test_a_worker_beside_gpus_that_cannot_read_says_so_as_others(work: Work, place: Place) -> None:
    row = batch_of(place.root / "02.png")
    work.mark.unlink()
    assert answer(work, load_row(row, work)) == answer(work, row)


@pytest.mark.parametrize("lost", ["cache", "photos"])
def test_a_machine_that_does_not_share_a_folder_is_named(
    work: Work, place: Place, lost: str
) -> None:
    row = batch_of(place.root / "02.png")
    shutil.rmtree(place.folder / lost)
    where = work.shards.folder if lost == "cache" else place.root
    told = answer(work, row)["input_error"]
    assert f"does not share {where}: all machines of the cluster need the project" in told


def test_a_machine_with_other_packages_is_named(work: Work, place: Place) -> None:
    other = replace(work, packages={**work.packages, "pillow": "1.0"})
    told = answer(other, batch_of(place.root / "02.png"))["input_error"]
    assert f"has pillow {work.packages['pillow']}, not 1.0 as the machine that started" in told


def test_a_full_disk_is_told(work: Work, place: Place) -> None:
    def full(_: int | None) -> Engine:
        raise OSError(errno.ENOSPC, "No space left on device", "x.npz")

    told = answer(replace(work, make_engine=full), batch_of(place.root / "02.png"))
    assert told == {"os_error": [errno.ENOSPC, "No space left on device", "x.npz"]}
