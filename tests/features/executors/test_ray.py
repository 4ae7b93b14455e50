import errno
import functools
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from pipeline.errors import InputError
from pipeline.features.decoding.photos import PhotoFile
from pipeline.features.encoders.engines import Engine, load_engine
from pipeline.features.executors import ray as ray_executor
from pipeline.features.executors.local import EncodeStats, LocalExecutor
from pipeline.features.executors.ray import ActorAllocation, allocate_actors
from pipeline.features.feature_spec import read_encoder_config
from pipeline.features.shard_cache import ShardCache
from pipeline.progress import Progress
from tests.conftest import FEATURE_SPEC
from tests.support.cluster import BATCH, DAMAGED, ClusterWorkspace, make_logging_engine
from tests.support.project import ROOT, SMALL, environment

NO_RAY = "the extra `ray` is not installed"

# Ray Data warns about its own settings.
pytestmark = pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\..*")


def fail_to_make_engine(_log: Path, _: int | None = None) -> Engine:
    raise InputError("encoder.weights.h5 is damaged: fix it")


@pytest.fixture(scope="module")
def machines() -> Iterator[Any]:
    """Start a cluster of two machines with one core each."""
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason=NO_RAY)
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def workspace(tmp_path: Path) -> ClusterWorkspace:
    return ClusterWorkspace.drawn(tmp_path)


@pytest.fixture
def clustered(workspace: ClusterWorkspace, machines: Any) -> ClusterWorkspace:
    workspace.address = machines.address
    return workspace


@pytest.mark.parametrize("first", ["local", "ray"])
def test_either_executor_finishes_what_the_other_has_started(
    clustered: ClusterWorkspace, first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    executors = [clustered.local(), clustered.ray()]
    starting, finishing = executors if first == "local" else reversed(executors)
    assert clustered.extract(starting, "both", photos=8).stats.computed == 6
    result = clustered.extract(finishing, "both")
    assert (result.cached, result.stats.computed) == (6, 11)
    assert set(result.failed) == set(DAMAGED)
    assert 0 <= result.stats.idle_seconds <= result.stats.seconds
    assert clustered.equals_local_store("both")
    assert capsys.readouterr() == ("", "Ray: machines 2, workers 2, cores of each 1\n")


def test_a_killed_worker_costs_one_batch(
    clustered: ClusterWorkspace, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kill one of two workers in the middle of its second batch."""
    hold = clustered.folder / "hold"
    hold.touch()

    def kill() -> None:
        deadline = time.monotonic() + 120
        while sorted(clustered.passes().values()) != [2, 2] and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(next(iter(clustered.passes())), signal.SIGKILL)
        hold.unlink()

    killer = threading.Thread(target=kill)
    killer.start()
    result = clustered.extract(clustered.ray(progress_seconds=0.001), "ray")
    killer.join()
    assert sum(clustered.passes().values()) == 7 + 1
    assert len(clustered.passes()) == 3  # another in its workspace
    assert (result.stats.computed, set(result.failed)) == (17, set(DAMAGED))
    assert "(0 cached, 1 failed; workers died: 1; " in capsys.readouterr().err
    assert clustered.equals_local_store("ray")


@pytest.mark.parametrize(
    ("make_engine", "engine_options", "message"),
    [
        (fail_to_make_engine, {}, r"encoder\.weights\.h5 is damaged: fix it"),
        (
            make_logging_engine,
            {"scale": 1e6},
            r"the encoder's output has numbers that float16 cannot hold: set .*",
        ),
    ],
)
def test_an_input_error_is_reported_as_on_one_machine(
    clustered: ClusterWorkspace,
    capsys: pytest.CaptureFixture[str],
    make_engine: Callable[..., Engine],
    engine_options: dict[str, float],
    message: str,
) -> None:
    feature_spec = replace(FEATURE_SPEC, dtype="float16")
    executor = clustered.ray(make_engine, actors=1, **engine_options)
    with pytest.raises(InputError, match=rf"\A{message}\Z"):
        clustered.extract(executor, "ray", feature_spec=feature_spec)
    assert capsys.readouterr() == ("", "Ray: machines 2, workers 1, cores of each 1\n")
    # A worker may run for a moment longer; the next run removes what it leaves behind.
    clustered.extract(clustered.local(), "ray", feature_spec=feature_spec)
    assert not list((clustered.folder / "ray").rglob(".tmp-*"))


def test_for_workers_with_gpus_photos_are_decoded_on_any_core(
    clustered: ClusterWorkspace, machines: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = machines.add_node(num_cpus=0, num_gpus=1)
    try:
        result = clustered.extract(clustered.ray(), "ray")
    finally:
        machines.remove_node(machine)
    assert capsys.readouterr().err == "Ray: machines 3, workers 1, a GPU for each\n"
    assert (result.stats.computed, result.stats.passes) == (17, 7)
    assert len(clustered.passes()) == 1
    assert clustered.equals_local_store("ray")


def test_the_stage_starts_a_cluster_on_this_machine(
    workspace: ClusterWorkspace, tiny_encoder: Path
) -> None:
    pytest.importorskip("ray", reason=NO_RAY)
    feature_spec = read_encoder_config(tiny_encoder / "encoder.json").feature_spec(
        "whole", "average", 1, "float32"
    )
    engine = functools.partial(load_engine, "keras", tiny_encoder, feature_spec, BATCH)
    workspace.extract(LocalExecutor(engine, 2, 3600), "local", feature_spec=feature_spec)
    images = workspace.folder / "data/mine/images"
    images.parent.mkdir(parents=True)
    workspace.root.rename(images)
    shutil.copytree(tiny_encoder, workspace.folder / "artifacts")
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    for section, keys in SMALL.items():
        params[section].update(keys)
    extract = {"pooling": "average", "scales": 1, "max_failed_share": 0.5, "max_pixels": 10_000}
    params["extract"].update(extract)
    params["runtime"].update(executor="ray", batch_size=2 * BATCH)
    yaml.dump(params, workspace.folder / "params.yaml")
    run = subprocess.run(
        [sys.executable, "-m", "pipeline.stages.extract"],
        cwd=workspace.folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    first, *progress = run.stderr.splitlines()
    assert first.startswith("Ray: machines 1, workers 1, cores of each ")
    assert progress
    assert all(line.startswith("extract: ") for line in progress)
    assert run.stdout.startswith("17 photos: 17 computed in 7 passes, 0 cached, 3 failed\n")
    store = (workspace.folder / "artifacts/features.h5").read_bytes()
    assert store == workspace.store("local").read_bytes()


def test_without_ray_the_error_names_what_to_install(
    workspace: ClusterWorkspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"runtime\.executor is ray.*pip install -e '\.\[ray\]'"):
        workspace.extract(workspace.ray(), "ray")
    assert workspace.extract(workspace.local(), "ray").stats.computed == 17
    assert workspace.extract(workspace.ray(), "ray", photos=3).stats.computed == 0


@pytest.mark.parametrize("address", ["127.0.0.1:1", "rubbish"])
def test_a_cluster_that_does_not_answer_is_an_error(
    workspace: ClusterWorkspace, address: str
) -> None:
    pytest.importorskip("ray", reason=NO_RAY)
    workspace.address = address
    message = rf"no Ray cluster can be reached at {address} \(.*\): see docs.*ray_address"
    with pytest.raises(InputError, match=message):
        workspace.extract(workspace.ray(), "ray")


@pytest.mark.parametrize(
    ("machines", "actors", "batches", "allocation"),
    [
        ([(8, 0)], None, 99, ActorAllocation(1, 8)),
        ([(8, 0), (8, 0)], None, 99, ActorAllocation(2, 8)),
        ([(8, 0), (8, 0)], 6, 99, ActorAllocation(6, 2)),
        ([(8, 0), (8, 0)], 99, 99, ActorAllocation(16, 1)),
        ([(8, 0), (8, 0)], None, 1, ActorAllocation(1, 8)),
        ([(16, 0), (5, 0)], None, 99, ActorAllocation(4, 5)),
        ([(0, 0), (8, 0)], None, 99, ActorAllocation(1, 8)),
        ([(8, 2), (8, 0)], None, 99, ActorAllocation(2, 0)),
        ([(8, 2), (8, 1)], 2, 99, ActorAllocation(2, 0)),
        ([(8, 2)], 5, 99, ActorAllocation(2, 0)),
    ],
)
def test_cores_and_gpus_are_divided_among_the_actors(
    machines: list[tuple[int, int]], actors: int | None, batches: int, allocation: ActorAllocation
) -> None:
    assert allocate_actors(machines, actors, batches) == allocation


def test_a_cluster_without_cores_is_an_error() -> None:
    with pytest.raises(InputError, match="the Ray cluster has no cores: see"):
        allocate_actors([(0, 0), (0, 1)], None, 9)


def test_a_workers_full_disk_is_reported_as_an_os_error() -> None:
    result = {"os_error": [errno.ENOSPC, "No space left on device", "x.npz"]}
    with (
        pytest.raises(OSError, match="No space left on device") as caught,
        Progress("", 1, "") as progress,
    ):
        ray_executor._collect_stats([result], progress, "")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "x.npz")


def test_a_vector_that_does_not_arrive_is_an_error(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, FEATURE_SPEC.fingerprint)
    photos = {"a" * 64: PhotoFile(Path("a.jpg")), "b" * 64: PhotoFile(Path("b.jpg"))}
    cache.add(["a" * 64], np.ones((1, 3), np.float32))
    ray_executor._check_vectors_arrived(photos, EncodeStats(failed={"b" * 64: "empty"}), cache)
    with pytest.raises(InputError, match=r"^1 vectors that the workers wrote .* not visible on"):
        ray_executor._check_vectors_arrived(photos, EncodeStats(), cache)


def test_workers_get_the_backend_and_their_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    expected = {"KERAS_BACKEND": "jax", "TF_NUM_INTRAOP_THREADS": "3"}
    assert ray_executor._worker_environment(ActorAllocation(2, 3)) == expected
    monkeypatch.delenv("KERAS_BACKEND")
    assert ray_executor._worker_environment(ActorAllocation(2, 0)) == {}
