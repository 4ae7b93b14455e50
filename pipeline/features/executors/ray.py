"""A cluster: photos through encoders on many machines, as a Ray Data actor pool.

Workers read photos and write shards themselves, in folders that the machines share: no
vector passes through Ray. What a cluster needs is in docs/cluster.md.
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

from pipeline.errors import InputError, collapsed
from pipeline.features.encoders.engines import Engine
from pipeline.features.executors.local import EncodeStats, cores, slower_side
from pipeline.features.executors.ray_worker import Work, Worker, load_row, package_versions
from pipeline.features.executors.ray_worker import batches as batches_of
from pipeline.features.feature_spec import FeatureSpec
from pipeline.features.shard_cache import ShardFolder
from pipeline.progress import Progress

# Ray reports home, prints advice, and starts again when asked for anything after its end,
# unless told not to; what a user has set stays.
_VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ENABLE_AUTO_CONNECT": "0",
}
_KNOCK_SECONDS = 10.0
_ELSE = "see docs/cluster.md, or set runtime.executor in params.yaml to local"


@dataclass(frozen=True)
class ActorPlan:
    """How a cluster is dealt out to encoders, all alike.

    Attributes:
        actors: encoders, a process each.
        cores: of each; 0 where each has a GPU and the cores are left for decoding.
    """

    actors: int
    cores: int


def plan_actors(machines: Sequence[tuple[int, int]], actors: int | None, batches: int) -> ActorPlan:
    """Deal out a cluster's machines, each its cores and its GPUs, to encoders.

    Where there are GPUs every encoder has one. Where there are none, encoders have the most
    cores with which so many of them fit.

    Args:
        machines: cores and GPUs of each.
        actors: encoders at most; None is one for each GPU or, without, one for each machine
            if all are alike, and else as many as fit with the cores of the smallest.
        batches: there are; more encoders than that have nothing to do.

    Raises:
        InputError: there are no cores.
    """
    sizes = [cores for cores, _ in machines if cores]
    if not sizes:
        raise InputError(f"the Ray cluster has no cores to give: {_ELSE}")
    if gpus := sum(gpus for _, gpus in machines):
        return ActorPlan(min(actors or gpus, gpus, batches), 0)

    def fit(cores: int) -> int:
        return sum(size // cores for size in sizes)

    wanted = min(actors or fit(min(sizes)), fit(1), batches)
    return ActorPlan(wanted, next(n for n in range(max(sizes), 0, -1) if fit(n) >= wanted))


@dataclass(frozen=True)
class RayExecutor:
    """Encodes photos on the machines of a Ray cluster.

    Attributes:
        make_engine: builds an inference engine for a number of cores, None being all; it is
            pickled, and its paths have to be absolute.
        pass_size: photos that a pass takes.
        actors: encoders, see `plan_actors`.
        address: of the cluster, as `ray.init` takes it; None is what RAY_ADDRESS says or,
            where it is not set, a cluster of this machine alone, for as long as it takes.
        progress_seconds: see `Progress`.
    """

    make_engine: Callable[[int | None], Engine]
    pass_size: int
    actors: int | None
    address: str | None
    progress_seconds: float

    def encode(
        self,
        photos: Mapping[str, Path],
        encoding: FeatureSpec,
        max_pixels: int,
        shards: ShardFolder,
        note: str,
    ) -> EncodeStats:
        """Encode `photos` (sha256 to file) into `shards`; show `note` beside the progress.

        Raises:
            InputError: Ray is not installed, the cluster cannot be reached, a machine of
                it lacks a folder or a package, or its workers keep dying.
        """
        if importlib.util.find_spec("ray") is None:
            raise InputError(
                "params.yaml: runtime.executor is ray, which is not installed: "
                "`pip install -e '.[ray]'`, or set it to local"
            )
        batches = batches_of(photos, self.pass_size)
        # Workers start in folders of their own.
        shards = ShardFolder(shards.folder.parents[1].absolute(), encoding.fingerprint)
        with _mark(shards.folder) as mark, _connection(self.address) as machines:
            share = plan_actors(machines, self.actors, len(batches))
            work = Work(
                make_engine=self.make_engine,
                input_size=encoding.input_size,
                views=encoding.views,
                max_pixels=max_pixels,
                dtype=encoding.dtype,
                shards=shards,
                mark=mark,
                cores=share.cores,
                environment=_environment(share),
                packages=package_versions(),
            )
            each = f"cores of each {share.cores}" if share.cores else "a GPU for each"
            print(f"Ray: machines {len(machines)}, workers {share.actors}, {each}", file=sys.stderr)
            with (
                closing(_answers(batches, work, share)) as answers,
                Progress("extract", len(photos), "photos", self.progress_seconds) as progress,
            ):
                outcome = _gather(answers, progress, note)
        _check_arrived(photos, outcome, shards)
        return outcome


def _environment(share: ActorPlan) -> dict[str, str]:
    """Return what workers need to be told: other machines have variables of their own."""
    variables = {}
    if backend := os.environ.get("KERAS_BACKEND"):
        variables["KERAS_BACKEND"] = backend
    if share.cores:  # PyTorch's threads are limited by Ray
        variables["TF_NUM_INTRAOP_THREADS"] = str(share.cores)
    return variables


@contextmanager
def _connection(address: str | None) -> Iterator[list[tuple[int, int]]]:
    """Join a cluster, or start one of this machine; yield the cores and GPUs of each machine.

    Raises:
        InputError: no cluster answers.
    """
    for name, value in _VARIABLES.items():
        os.environ.setdefault(name, value)
    import ray  # noqa: PLC0415  (an optional extra)

    address = address or os.environ.get("RAY_ADDRESS") or "local"
    own = {"num_cpus": cores(), "include_dashboard": False} if address == "local" else {}
    try:
        _knock(address)
        with _silence():
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (OSError, RuntimeError, ValueError) as error:
        reason = collapsed(error)
        raise InputError(
            f"no Ray cluster can be reached at {address} ({reason}): see docs/cluster.md, or set "
            "runtime.ray_address in params.yaml to null for one of this machine alone"
        ) from None
    # Ray prints pages on every worker that dies; its log files have them too.
    with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing):
        try:
            resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            yield [(int(of.get("CPU", 0)), int(of.get("GPU", 0))) for of in resources]
        finally:
            ray.shutdown()


def _knock(address: str) -> None:
    """Raise `OSError` where nobody listens at HOST:PORT; Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_SECONDS).close()


@contextmanager
def _silence() -> Iterator[None]:
    """Drop what C++ writes to file descriptor 2; errors come as exceptions."""
    kept = os.dup(2)
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def _mark(folder: Path) -> Iterator[Path]:
    """Put a file in `folder` that no other folder has; named as leftovers are."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / f".tmp-{secrets.token_hex(8)}-mark"
    mark.touch()
    try:
        yield mark
    finally:
        for left in folder.glob(f"{mark.name}*"):
            left.unlink(missing_ok=True)


def _answers(
    batches: Iterable[str], work: Work, share: ActorPlan
) -> Generator[dict[str, Any], None, None]:
    """Run the actor pool, until closed; yield what workers answer, in any order.

    Raises:
        InputError: workers cannot start.
    """
    import ray  # noqa: PLC0415  (an optional extra)
    import ray.data  # noqa: PLC0415
    import ray.exceptions  # noqa: PLC0415

    ray.data.DataContext.get_current().enable_progress_bars = False
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):  # the other writes Ray's own log file
            handler.setLevel(logging.CRITICAL)
    # A block, and so a task, for each batch: Ray Data counts, retries and moves blocks.
    rows = [{"batch": batch} for batch in batches]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    if not share.cores:
        dataset = dataset.map(load_row, fn_args=(work,), num_cpus=1)
    dataset = dataset.map(
        Worker,
        fn_constructor_args=(work,),
        compute=ray.data.ActorPoolStrategy(size=share.actors),
        num_cpus=share.cores,
        num_gpus=0 if share.cores else 1,
    )
    try:
        for row in dataset.iter_rows():
            yield json.loads(row["answer"])
    except ray.exceptions.RayActorError as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(f"the workers of the Ray cluster died ({reason}): {_ELSE}") from None


@dataclass
class _WorkerTimes:
    """Tells how long workers, whose clocks differ, worked and had nothing to encode."""

    begun: float | None = None
    ages: dict[str, float] = field(default_factory=dict)
    busy: dict[str, float] = field(default_factory=dict)

    def hear(self, answer: Mapping[str, Any]) -> None:
        if self.begun is None:
            self.begun = time.monotonic() - answer["age"]
        # From a worker's start to its last batch: what follows is not for want of photos.
        self.ages[answer["worker"]] = answer["age"]
        self.busy[answer["worker"]] = answer["busy"]

    def seconds(self) -> float:
        return 0.0 if self.begun is None else time.monotonic() - self.begun

    def waiting(self) -> float:
        return self.seconds() * (1 - sum(self.busy.values()) / sum(self.ages.values()))


def _gather(answers: Iterable[dict[str, Any]], progress: Progress, note: str) -> EncodeStats:
    """Add up what workers answer.

    Raises:
        InputError: from a worker.
        OSError: from a worker.
    """
    outcome, clock, died = EncodeStats(), _WorkerTimes(), 0
    for answer in answers:
        if "input_error" in answer:
            raise InputError(answer["input_error"])
        if "os_error" in answer:
            raise OSError(*answer["os_error"])
        clock.hear(answer)
        outcome.failed |= answer["failed"]
        outcome.computed += answer["photos"] - len(answer["failed"])
        outcome.passes += answer["passes"]
        died += answer["died"]
        notes = [note, f"workers died: {died}"] if died else [note]
        notes.append(slower_side(clock.waiting(), clock.seconds()))
        progress.advance(answer["photos"], "; ".join(notes))
    outcome.seconds, outcome.waiting = clock.seconds(), clock.waiting()
    return outcome


def _check_arrived(photos: Mapping[str, Path], outcome: EncodeStats, shards: ShardFolder) -> None:
    """Make sure that this machine sees what the others wrote."""
    there = shards.index()
    missing = sum(sha not in there and sha not in outcome.failed for sha in photos)
    if missing:
        raise InputError(
            f"{missing} vectors that the workers wrote to {shards.folder} are not seen here: "
            "mend the sharing of that folder, then run `dvc repro` again"
        )
