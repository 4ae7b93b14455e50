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
from pipeline.features.encoders.engines import Engine, load_engine
from pipeline.features.executors import ray as cluster
from pipeline.features.executors.local import EncodeStats, LocalExecutor
from pipeline.features.executors.ray import ActorPlan, plan_actors
from pipeline.features.feature_spec import read_encoder_config
from pipeline.features.shard_cache import ShardFolder
from pipeline.progress import Progress
from tests.conftest import ENCODING
from tests.support.cluster import BATCH, DAMAGED, Place, colours
from tests.support.project import ROOT, SMALL, environment

NO_RAY = "the extra `ray` is not installed"

# Ray Data warns of its own settings.
pytestmark = pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\..*")


def refuses(_log: Path, _: int | None = None) -> Engine:
    raise InputError("encoder.weights.h5 is damaged: mend it")


@pytest.fixture(scope="module")
def machines() -> Iterator[Any]:
    """Start a cluster of two machines, a core each."""
    cluster_utils = pytest.importorskip("ray.cluster_utils", reason=NO_RAY)
    started = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    started.add_node(num_cpus=1)
    yield started
    started.shutdown()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.drawn(tmp_path)


@pytest.fixture
def shared(place: Place, machines: Any) -> Place:
    place.address = machines.address
    return place


@pytest.mark.parametrize("first", ["local", "ray"])
def test_a_run_begun_on_either_is_finished_on_the_other(
    shared: Place, first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    executors = [shared.local(), shared.ray()]
    begins, ends = executors if first == "local" else reversed(executors)
    assert shared.extract(begins, "both", photos=8).encoded.computed == 6
    ended = shared.extract(ends, "both")
    assert (ended.known, ended.encoded.computed) == (6, 11)
    assert set(ended.failed) == set(DAMAGED)
    assert 0 <= ended.encoded.waiting <= ended.encoded.seconds
    assert shared.is_as_one_machine_makes_it("both")
    assert capsys.readouterr() == ("", "Ray: machines 2, workers 2, cores of each 1\n")


def test_a_killed_worker_costs_a_batch(shared: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """One of two workers is killed in the middle of its second batch."""
    hold = shared.folder / "hold"
    hold.touch()

    def kill() -> None:
        deadline = time.monotonic() + 120
        while sorted(shared.passes().values()) != [2, 2] and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(next(iter(shared.passes())), signal.SIGKILL)
        hold.unlink()

    killer = threading.Thread(target=kill)
    killer.start()
    result = shared.extract(shared.ray(progress_seconds=0.001), "ray")
    killer.join()
    assert sum(shared.passes().values()) == 7 + 1
    assert len(shared.passes()) == 3  # another in its place
    assert (result.encoded.computed, set(result.failed)) == (17, set(DAMAGED))
    assert "(0 cached, 1 failed; workers died: 1; " in capsys.readouterr().err
    assert shared.is_as_one_machine_makes_it("ray")


@pytest.mark.parametrize(
    ("make_engine", "engine", "words"),
    [
        (refuses, {}, r"encoder\.weights\.h5 is damaged: mend it"),
        (colours, {"scale": 1e6}, r"the encoder gives numbers that float16 cannot hold: set .*"),
    ],
)
def test_a_users_mistake_is_told_as_on_one_machine(
    shared: Place,
    capsys: pytest.CaptureFixture[str],
    make_engine: Callable[..., Engine],
    engine: dict[str, float],
    words: str,
) -> None:
    encoding = replace(ENCODING, dtype="float16")
    executor = shared.ray(make_engine, actors=1, **engine)
    with pytest.raises(InputError, match=rf"\A{words}\Z"):
        shared.extract(executor, "ray", encoding=encoding)
    assert capsys.readouterr() == ("", "Ray: machines 2, workers 1, cores of each 1\n")
    # A worker may be at it for a moment longer; what it leaves, the next run takes away.
    shared.extract(shared.local(), "ray", encoding=encoding)
    assert not list((shared.folder / "ray").rglob(".tmp-*"))


def test_beside_a_gpu_photos_are_decoded_on_any_core(
    shared: Place, machines: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = machines.add_node(num_cpus=0, num_gpus=1)
    try:
        result = shared.extract(shared.ray(), "ray")
    finally:
        machines.remove_node(machine)
    assert capsys.readouterr().err == "Ray: machines 3, workers 1, a GPU for each\n"
    assert (result.encoded.computed, result.encoded.passes) == (17, 7)
    assert len(shared.passes()) == 1
    assert shared.is_as_one_machine_makes_it("ray")


def test_the_stage_starts_a_cluster_of_this_machine_alone(place: Place, tiny_encoder: Path) -> None:
    pytest.importorskip("ray", reason=NO_RAY)
    encoding = read_encoder_config(tiny_encoder / "encoder.json").encoding(
        "whole", "average", 1, "float32"
    )
    engine = functools.partial(load_engine, "keras", tiny_encoder, encoding, BATCH)
    place.extract(LocalExecutor(engine, 2, 3600), "local", encoding=encoding)
    images = place.folder / "data/mine/images"
    images.parent.mkdir(parents=True)
    place.root.rename(images)
    shutil.copytree(tiny_encoder, place.folder / "artifacts")
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    for section, keys in SMALL.items():
        params[section].update(keys)
    extract = {"pooling": "average", "scales": 1, "max_failed_share": 0.5, "max_pixels": 10_000}
    params["extract"].update(extract)
    params["runtime"].update(executor="ray", batch_size=2 * BATCH)
    yaml.dump(params, place.folder / "params.yaml")
    run = subprocess.run(
        [sys.executable, "-m", "pipeline.stages.extract"],
        cwd=place.folder,
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
    assert run.stdout.startswith("17 photos: 17 computed in 7 passes, 0 known before, 3 failed\n")
    made = (place.folder / "artifacts/features.h5").read_bytes()
    assert made == place.store("local").read_bytes()


def test_without_ray_it_is_told_what_to_install(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"runtime\.executor is ray.*pip install -e '\.\[ray\]'"):
        place.extract(place.ray(), "ray")
    assert place.extract(place.local(), "ray").encoded.computed == 17
    assert place.extract(place.ray(), "ray", photos=3).encoded.computed == 0


@pytest.mark.parametrize("address", ["127.0.0.1:1", "rubbish"])
def test_a_cluster_that_does_not_answer_is_told(place: Place, address: str) -> None:
    pytest.importorskip("ray", reason=NO_RAY)
    place.address = address
    words = rf"no Ray cluster can be reached at {address} \(.*\): see docs.*ray_address"
    with pytest.raises(InputError, match=words):
        place.extract(place.ray(), "ray")


@pytest.mark.parametrize(
    ("machines", "actors", "batches", "share"),
    [
        ([(8, 0)], None, 99, ActorPlan(1, 8)),
        ([(8, 0), (8, 0)], None, 99, ActorPlan(2, 8)),
        ([(8, 0), (8, 0)], 6, 99, ActorPlan(6, 2)),
        ([(8, 0), (8, 0)], 99, 99, ActorPlan(16, 1)),
        ([(8, 0), (8, 0)], None, 1, ActorPlan(1, 8)),
        ([(16, 0), (5, 0)], None, 99, ActorPlan(4, 5)),
        ([(0, 0), (8, 0)], None, 99, ActorPlan(1, 8)),
        ([(8, 2), (8, 0)], None, 99, ActorPlan(2, 0)),
        ([(8, 2), (8, 1)], 2, 99, ActorPlan(2, 0)),
        ([(8, 2)], 5, 99, ActorPlan(2, 0)),
    ],
)
def test_a_cluster_is_dealt_out(
    machines: list[tuple[int, int]], actors: int | None, batches: int, share: ActorPlan
) -> None:
    assert plan_actors(machines, actors, batches) == share


def test_a_cluster_without_cores_is_told() -> None:
    with pytest.raises(InputError, match="the Ray cluster has no cores to give"):
        plan_actors([(0, 0), (0, 1)], None, 9)


def test_a_workers_full_disk_is_told_as_ones_own() -> None:
    told = {"os_error": [errno.ENOSPC, "No space left on device", "x.npz"]}
    with (
        pytest.raises(OSError, match="No space left on device") as caught,
        Progress("", 1, "") as progress,
    ):
        cluster._gather([told], progress, "")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "x.npz")


def test_a_vector_that_does_not_arrive_is_told(tmp_path: Path) -> None:
    shards = ShardFolder(tmp_path, ENCODING.fingerprint)
    photos = {"a" * 64: Path("a.jpg"), "b" * 64: Path("b.jpg")}
    shards.add(["a" * 64], np.ones((1, 3), np.float32))
    cluster._check_arrived(photos, EncodeStats(failed={"b" * 64: "empty"}), shards)
    with pytest.raises(InputError, match=r"^1 vectors that the workers wrote .* not seen here"):
        cluster._check_arrived(photos, EncodeStats(), shards)


def test_workers_are_told_their_backend_and_their_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    told = {"KERAS_BACKEND": "jax", "TF_NUM_INTRAOP_THREADS": "3"}
    assert cluster._environment(ActorPlan(2, 3)) == told
    monkeypatch.delenv("KERAS_BACKEND")
    assert cluster._environment(ActorPlan(2, 0)) == {}
