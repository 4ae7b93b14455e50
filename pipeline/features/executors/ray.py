"""Ray executor: encodes photos on the machines of a cluster, as a Ray Data actor pool.

Workers read photos and write shards themselves, in folders that all machines share: no
vector passes through Ray. docs/cluster.md lists what a cluster needs.
"""

import importlib.util
import json
import logging
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, collapsed_message
from pipeline.features.decoding.photos import PhotoFile
from pipeline.features.encoders.engines import Engine
from pipeline.features.executors.local import EncodeStats, available_cores, describe_bottleneck
from pipeline.features.executors.ray_worker import (
    EncoderActor,
    WorkerConfig,
    decode_row,
    json_batches,
    package_versions,
)
from pipeline.features.feature_spec import FeatureSpec
from pipeline.features.shard_cache import ShardCache
from pipeline.progress import Progress

# By default Ray sends usage statistics, prints advice, and starts a new cluster when it is used
# after its shutdown. Variables that the user has set are left as they are.
_VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ENABLE_AUTO_CONNECT": "0",
}
_CONNECT_TIMEOUT = 10.0  # seconds
_FIX = "see docs/cluster.md, or set runtime.executor in params.yaml to local"


@dataclass(frozen=True)
class ActorAllocation:
    """How many encoder actors run on a cluster, and what each gets.

    Attributes:
        actors: number of encoders, each in its own process.
        cores: cores per encoder; 0 if each has a GPU and the cores are left for decoding.
    """

    actors: int
    cores: int


def allocate_actors(
    machines: Sequence[tuple[int, int]], actors: int | None, batches: int
) -> ActorAllocation:
    """Divide the cores and GPUs of a cluster among encoders.

    With GPUs, every encoder gets one. Without, every encoder gets as many cores as possible
    such that all of them fit on the machines.

    Args:
        machines: cores and GPUs of each machine.
        actors: maximum number of encoders; None uses one per GPU or, without GPUs, as many as
            fit if each has the cores of the smallest machine: one per machine if all are alike.
        batches: number of batches; more encoders than that would have nothing to do.

    Raises:
        InputError: the cluster has no cores.
    """
    sizes = [cores for cores, _ in machines if cores]
    if not sizes:
        raise InputError(f"the Ray cluster has no cores: {_FIX}")
    if gpus := sum(gpus for _, gpus in machines):
        return ActorAllocation(min(actors or gpus, gpus, batches), 0)

    def capacity(cores: int) -> int:
        return sum(size // cores for size in sizes)

    count = min(actors or capacity(min(sizes)), capacity(1), batches)
    return ActorAllocation(count, next(n for n in range(max(sizes), 0, -1) if capacity(n) >= count))


@dataclass(frozen=True)
class RayExecutor:
    """Encodes photos on the machines of a Ray cluster.

    Attributes:
        make_engine: builds an inference engine for a number of cores (None uses all); it is
            pickled, so its paths must be absolute.
        pass_size: photos per pass.
        actors: maximum number of encoders, see `allocate_actors`.
        address: cluster address, as for `ray.init`. None uses RAY_ADDRESS or, if that is not
            set, a cluster of this machine alone that ends with the extraction.
        progress_seconds: see `Progress`.
    """

    make_engine: Callable[[int | None], Engine]
    pass_size: int
    actors: int | None
    address: str | None
    progress_seconds: float

    def encode(
        self,
        photos: Mapping[str, PhotoFile],
        feature_spec: FeatureSpec,
        max_pixels: int,
        cache: ShardCache,
        status: str,
    ) -> EncodeStats:
        """Encode photos into the shard cache; see `extractor.Executor.encode`.

        Workers read the files themselves: bytes that are still in memory are released.

        Raises:
            InputError: Ray is not installed, the cluster cannot be reached, one of its machines
                lacks a folder or a package, or its workers keep dying.
        """
        if importlib.util.find_spec("ray") is None:
            raise InputError(
                "params.yaml: runtime.executor is ray, which is not installed: "
                "`pip install -e '.[ray]'`, or set it to local"
            )
        for photo in photos.values():
            photo.release()
        batches = json_batches(photos, self.pass_size)
        # Workers start in folders of their own, so the path must be absolute.
        cache = ShardCache(cache.folder.parents[1].absolute(), feature_spec.fingerprint)
        with _marker_file(cache.folder) as marker, _connection(self.address) as machines:
            allocation = allocate_actors(machines, self.actors, len(batches))
            config = WorkerConfig(
                make_engine=self.make_engine,
                input_size=feature_spec.input_size,
                views=feature_spec.views,
                max_pixels=max_pixels,
                dtype=feature_spec.dtype,
                cache=cache,
                marker=marker,
                cores=allocation.cores,
                environment=_worker_environment(allocation),
                packages=package_versions(),
            )
            _print_allocation(len(machines), allocation)
            with (
                closing(_run_actors(batches, config, allocation)) as results,
                Progress("extract", len(photos), "photos", self.progress_seconds) as progress,
            ):
                stats = _collect_stats(results, progress, status)
        _check_vectors_arrived(photos, stats, cache)
        return stats


def _print_allocation(machines: int, allocation: ActorAllocation) -> None:
    share = f"cores of each {allocation.cores}" if allocation.cores else "a GPU for each"
    print(f"Ray: machines {machines}, workers {allocation.actors}, {share}", file=sys.stderr)


def _worker_environment(allocation: ActorAllocation) -> dict[str, str]:
    """Return the variables to set in workers, which do not inherit those of this process."""
    variables = {}
    if backend := os.environ.get("KERAS_BACKEND"):
        variables["KERAS_BACKEND"] = backend
    if allocation.cores:  # Ray limits PyTorch's threads itself
        variables["TF_NUM_INTRAOP_THREADS"] = str(allocation.cores)
    return variables


@contextmanager
def _connection(address: str | None) -> Iterator[list[tuple[int, int]]]:
    """Connect to a cluster, or start one on this machine; yield each machine's cores and GPUs.

    Raises:
        InputError: no cluster can be reached.
    """
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
    import ray  # noqa: PLC0415  (an optional extra)

    address = address or os.environ.get("RAY_ADDRESS") or "local"
    options = (
        {"num_cpus": available_cores(), "include_dashboard": False} if address == "local" else {}
    )
    try:
        _check_reachable(address)
        with _silenced_stderr():
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (OSError, RuntimeError, ValueError) as error:
        reason = collapsed_message(error)
        raise InputError(
            f"no Ray cluster can be reached at {address} ({reason}): see docs/cluster.md, or set "
            "runtime.ray_address in params.yaml to null to use this machine alone"
        ) from None
    # Ray prints pages about every worker that dies; they are in its log files too.
    with Path(os.devnull).open("w") as devnull, redirect_stdout(devnull):
        try:
            resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            yield [(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in resources]
        finally:
            ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise `OSError` if nothing listens at HOST:PORT; Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT).close()


@contextmanager
def _silenced_stderr() -> Iterator[None]:
    """Discard what Ray's C++ code writes to file descriptor 2; its errors are raised as well."""
    original = os.dup(2)
    with Path(os.devnull).open("wb") as devnull:
        os.dup2(devnull.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(original, 2)
        os.close(original)


@contextmanager
def _marker_file(folder: Path) -> Iterator[Path]:
    """Create a file by which workers recognize `folder`.

    It is named like a temporary file, so that the next extraction removes it if this one is
    killed. Workers put their counts of attempts next to it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / f".tmp-{secrets.token_hex(8)}-mark"
    marker.touch()
    try:
        yield marker
    finally:
        for leftover in folder.glob(f"{marker.name}*"):
            leftover.unlink(missing_ok=True)


def _run_actors(
    batches: Iterable[str], config: WorkerConfig, allocation: ActorAllocation
) -> Generator[dict[str, Any], None, None]:
    """Run the actor pool until closed; yield the workers' results, in any order.

    Raises:
        InputError: workers cannot start.
    """
    import ray  # noqa: PLC0415  (an optional extra)
    import ray.data  # noqa: PLC0415
    import ray.exceptions  # noqa: PLC0415

    ray.data.DataContext.get_current().enable_progress_bars = False
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):  # the other handler writes Ray's log file
            handler.setLevel(logging.CRITICAL)
    # One block, and so one task, per batch: Ray Data counts, retries and moves blocks.
    rows = [{"batch": batch} for batch in batches]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    if not allocation.cores:
        dataset = dataset.map(decode_row, fn_args=(config,), num_cpus=1)
    dataset = dataset.map(
        EncoderActor,
        fn_constructor_args=(config,),
        compute=ray.data.ActorPoolStrategy(size=allocation.actors),
        num_cpus=allocation.cores,
        num_gpus=0 if allocation.cores else 1,
    )
    try:
        for row in dataset.iter_rows():
            yield json.loads(row["result"])
    except ray.exceptions.RayActorError as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(f"the workers of the Ray cluster died ({reason}): {_FIX}") from None


@dataclass
class _WorkerUtilization:
    """Estimates the workers' idle time from their own clocks, which differ between machines."""

    start: float | None = None
    seconds_by_worker: dict[str, float] = field(default_factory=dict)
    busy_by_worker: dict[str, float] = field(default_factory=dict)

    def update(self, result: Mapping[str, Any]) -> None:
        if self.start is None:
            self.start = time.monotonic() - result["seconds"]
        # Counted up to a worker's last batch: after that it is not waiting for photos.
        self.seconds_by_worker[result["worker"]] = result["seconds"]
        self.busy_by_worker[result["worker"]] = result["busy_seconds"]

    def seconds(self) -> float:
        return 0.0 if self.start is None else time.monotonic() - self.start

    def idle_seconds(self) -> float:
        busy_share = sum(self.busy_by_worker.values()) / sum(self.seconds_by_worker.values())
        return self.seconds() * (1 - busy_share)


def _collect_stats(
    results: Iterable[dict[str, Any]], progress: Progress, status: str
) -> EncodeStats:
    """Add up the workers' results and show the progress.

    Raises:
        InputError: a worker reported one.
        OSError: a worker reported one.
    """
    stats, utilization, deaths = EncodeStats(), _WorkerUtilization(), 0
    for result in results:
        if "input_error" in result:
            raise InputError(result["input_error"])
        if "os_error" in result:
            raise OSError(*result["os_error"])
        utilization.update(result)
        stats.failed |= result["failed"]
        stats.computed += result["photos"] - len(result["failed"])
        stats.passes += result["passes"]
        deaths += result["deaths"]
        notes = [status, f"workers died: {deaths}"] if deaths else [status]
        notes.append(describe_bottleneck(utilization.idle_seconds(), utilization.seconds()))
        progress.advance(result["photos"], "; ".join(notes))
    stats.seconds, stats.idle_seconds = utilization.seconds(), utilization.idle_seconds()
    return stats


def _check_vectors_arrived(
    photos: Mapping[str, PhotoFile], stats: EncodeStats, cache: ShardCache
) -> None:
    """Check that this machine sees the shards that the workers wrote."""
    locations = cache.index()
    missing = sum(sha not in locations and sha not in stats.failed for sha in photos)
    if missing:
        raise InputError(
            f"{missing} vectors that the workers wrote to {cache.folder} are not visible on this "
            "machine: fix the sharing of that folder, then run `dvc repro` again"
        )
