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

from pipeline.features.decoding.photos import PhotoFile, decode_photo
from pipeline.features.encoders.engines import Engine, Pixels, Vectors
from pipeline.features.executors.ray_worker import (
    EncoderActor,
    WorkerConfig,
    decode_row,
    json_batches,
    package_versions,
)
from pipeline.features.shard_cache import ShardCache, read_vectors
from tests.conftest import FEATURE_SPEC
from tests.support.cluster import ClusterWorkspace, LoggingEngine, make_logging_engine


@pytest.fixture
def workspace(tmp_path: Path) -> ClusterWorkspace:
    return ClusterWorkspace.drawn(tmp_path)


@pytest.fixture
def config(workspace: ClusterWorkspace) -> WorkerConfig:
    cache = ShardCache(workspace.folder / "cache", FEATURE_SPEC.fingerprint)
    cache.folder.mkdir(parents=True)
    marker = cache.folder / ".tmp-0-mark"
    marker.touch()
    return WorkerConfig(
        make_engine=functools.partial(make_logging_engine, workspace.log),
        input_size=32,
        views="whole",
        max_pixels=10_000,
        dtype="float32",
        cache=cache,
        marker=marker,
        cores=1,
        environment={},
        packages=package_versions(),
    )


def row_of(*paths: Path) -> dict[str, str]:
    """Return a row with a batch of photos."""
    photos = {hashlib.sha256(path.read_bytes()).hexdigest(): PhotoFile(path) for path in paths}
    (batch,) = json_batches(photos, len(photos))
    return {"batch": batch}


def encode_row(config: WorkerConfig, row: dict[str, Any]) -> dict[str, Any]:
    result = json.loads(EncoderActor(config)(row)["result"])
    assert isinstance(result, dict)
    return result


def test_a_worker_stores_its_batch_and_reports_failed_photos(
    config: WorkerConfig, workspace: ClusterWorkspace
) -> None:
    paths = [workspace.root / name for name in ("02.png", "03.png", "04.png")]
    result = encode_row(config, row_of(*paths))
    assert list(result["failed"].values()) == ["a web page: download the photo itself"]
    assert (result["photos"], result["passes"], result["deaths"]) == (3, 1, 0)
    assert len(config.cache.index()) == 2
    assert list(config.cache.folder.glob(".tmp-*")) == [config.marker]


@pytest.mark.parametrize("decoded_elsewhere", [False, True])
def test_a_fault_of_a_workers_disk_is_an_error_and_no_failed_photo(
    config: WorkerConfig,
    workspace: ClusterWorkspace,
    monkeypatch: pytest.MonkeyPatch,
    decoded_elsewhere: bool,
) -> None:
    row: dict[str, Any] = row_of(workspace.root / "02.png", workspace.root / "03.png")

    def fail(path: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        result = encode_row(config, decode_row(row, config) if decoded_elsewhere else row)
    (message,) = result.values()
    assert list(result) == ["input_error"]
    assert "02.png could not be read (Input/output error), which is no fault of" in message
    assert encode_row(config, row)["photos"] == 2


def test_a_batch_of_damaged_photos_costs_no_pass(
    config: WorkerConfig, workspace: ClusterWorkspace
) -> None:
    result = encode_row(config, row_of(workspace.root / "03.png", workspace.root / "11.png"))
    assert (result["photos"], result["passes"], len(result["failed"])) == (2, 0, 2)
    assert config.cache.index() == {}


def test_a_batch_decoded_elsewhere_gives_the_same_shard(
    config: WorkerConfig, workspace: ClusterWorkspace
) -> None:
    row = row_of(workspace.root / "02.png", workspace.root / "03.png", workspace.root / "04.png")
    result = encode_row(config, row)
    (shard,) = config.cache.folder.glob("*.npz")
    expected = shard.read_bytes()
    shard.unlink()
    gpu_result = encode_row(config, decode_row(row, config))
    assert gpu_result["failed"] == result["failed"]
    assert shard.read_bytes() == expected


@pytest.mark.parametrize("decoded_elsewhere", [False, True])
def test_a_worker_stores_all_views_of_a_photo(
    config: WorkerConfig, workspace: ClusterWorkspace, decoded_elsewhere: bool
) -> None:
    good = workspace.root / "02.png"
    config = replace(config, views="mirror")
    row = row_of(good, workspace.root / "03.png")
    result = encode_row(config, decode_row(row, config) if decoded_elsewhere else row)
    assert (result["photos"], result["passes"], len(result["failed"])) == (2, 1, 1)
    index = config.cache.index()
    ((_, vectors),) = read_vectors(index, list(index))
    expected = decode_photo(good.read_bytes(), 32, 10_000, "mirror").mean(axis=(1, 2))
    np.testing.assert_allclose(vectors, expected[None], rtol=1e-5)


def test_a_file_name_that_is_not_unicode_works(
    config: WorkerConfig, workspace: ClusterWorkspace
) -> None:
    odd = workspace.root / os.fsdecode(b"\xff.png")
    (workspace.root / "02.png").rename(odd)
    assert encode_row(config, row_of(odd))["failed"] == {}


def test_a_photo_that_kills_every_worker_is_an_error(
    config: WorkerConfig, workspace: ClusterWorkspace
) -> None:
    class DyingEngine(LoggingEngine):
        def encode(self, _: Pixels) -> Vectors:
            raise SystemExit

    row = row_of(workspace.root / "02.png", workspace.root / "04.png")
    dying = replace(config, make_engine=lambda _: DyingEngine(workspace.log))
    for _ in range(3):
        with pytest.raises(SystemExit):
            EncoderActor(dying)(row)
    assert encode_row(config, row)["deaths"] == 3
    for _ in range(4):
        with pytest.raises(SystemExit):
            EncoderActor(dying)(row)
    message = (
        "4 workers died on the batch of 2 photos that starts with "
        f"{workspace.root / '02.png'}: remove the photo "
    )
    assert encode_row(dying, row)["input_error"].startswith(message)


def test_an_error_while_decoding_elsewhere_is_reported_like_a_workers(
    config: WorkerConfig, workspace: ClusterWorkspace
) -> None:
    row = row_of(workspace.root / "02.png")
    config.marker.unlink()
    assert encode_row(config, decode_row(row, config)) == encode_row(config, row)


@pytest.mark.parametrize("lost", ["cache", "photos"])
def test_a_machine_that_does_not_share_a_folder_is_named(
    config: WorkerConfig, workspace: ClusterWorkspace, lost: str
) -> None:
    row = row_of(workspace.root / "02.png")
    shutil.rmtree(workspace.folder / lost)
    folder = config.cache.folder if lost == "cache" else workspace.root
    result = encode_row(config, row)["input_error"]
    assert f"does not share {folder}: all machines of the cluster need the project" in result


def test_a_machine_with_other_packages_is_named(
    config: WorkerConfig, workspace: ClusterWorkspace
) -> None:
    other = replace(config, packages={**config.packages, "pillow": "1.0"})
    result = encode_row(other, row_of(workspace.root / "02.png"))["input_error"]
    assert f"has pillow {config.packages['pillow']}, but the machine that started" in result
    assert "has 1.0: install requirements.lock on both" in result


def test_a_full_disk_is_reported(config: WorkerConfig, workspace: ClusterWorkspace) -> None:
    def full(_: int | None) -> Engine:
        raise OSError(errno.ENOSPC, "No space left on device", "x.npz")

    result = encode_row(replace(config, make_engine=full), row_of(workspace.root / "02.png"))
    assert result == {"os_error": [errno.ENOSPC, "No space left on device", "x.npz"]}
