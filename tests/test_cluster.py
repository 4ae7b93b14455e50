import errno
import functools
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from pipeline.errors import InputError
from pipeline.features import cluster
from pipeline.features.cluster import RayExecutor, Share, Work, Worker, deal, load_row
from pipeline.features.encoding import Encoding, read_encoder
from pipeline.features.engines import Engine, OpenVINOEngine, Pixels, Vectors, load_engine
from pipeline.features.execution import LocalExecutor, Outcome
from pipeline.features.extraction import Executor, Extraction, Extractor
from pipeline.features.shards import ShardFolder
from pipeline.progress import Progress
from tests.conftest import encoded, make_photo
from tests.project import ROOT, SMALL, environment

BATCH = 3
ENCODING = Encoding(
    encoder="MobileNet",
    input_size=32,
    weights_sha256="a" * 64,
    preprocessing="keras.applications.mobilenet.preprocess_input",
    preprocessing_sha256="b" * 64,
    decoding="as it is",
    pooling="average",
    dtype="float32",
)
DAMAGED = {"03.png": b"<html>", "07.png": b"", "11.png": b"\x89PNG\r\n\x1a\n"}
NO_RAY = "the extra `ray` is not installed"

# Ray Data warns of its own settings.
pytestmark = pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\..*")


class Colours(Engine):
    """Encodes a photo as its mean colours; notes every pass, with its process, in a file.

    While there is a file `hold` beside that one, a second pass does not end.
    """

    def __init__(self, log: Path, scale: float = 1.0) -> None:
        super().__init__((3,), BATCH, part=BATCH, threads=1)
        self._log, self._scale = log, scale

    def _infer(self, part: Pixels) -> Vectors:
        with self._log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        while self.passes > 1 and self._log.with_name("hold").exists():
            time.sleep(0.02)
        vectors: Vectors = part.mean(axis=(1, 2), dtype=np.float32) * np.float32(self._scale)
        return vectors


def colours(log: Path, _: int | None = None, **options: float) -> Engine:
    return Colours(log, **options)


def refuses(_log: Path, _: int | None = None) -> Engine:
    raise InputError("encoder.weights.h5 is damaged: mend it")


@dataclass
class Place:
    """Photos, some of them damaged, and what is made of them."""

    folder: Path
    address: str | None = None

    @property
    def root(self) -> Path:
        return self.folder / "photos"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def draw(self, count: int) -> None:
        self.root.mkdir()
        for number in range(count):
            name = f"{number:02}.png"
            drawn = encoded(make_photo(seed=number), "PNG")
            (self.root / name).write_bytes(DAMAGED.get(name, drawn))

    def local(self) -> Executor:
        return LocalExecutor(functools.partial(colours, self.log), 2, 3600)

    def ray(
        self,
        make_engine: Callable[..., Engine] = colours,
        actors: int = 2,
        progress_seconds: float = 3600.0,
        **engine: float,
    ) -> Executor:
        make = functools.partial(make_engine, self.log, **engine)
        return RayExecutor(make, BATCH, actors, self.address, progress_seconds)

    def extract(
        self,
        executor: Executor,
        cache: str,
        photos: int | None = None,
        encoding: Encoding = ENCODING,
    ) -> Extraction:
        found = sorted(self.root.iterdir())[:photos]
        return Extractor(
            encoding=encoding,
            executor=executor,
            cache=self.folder / cache,
            max_pixels=10_000,
            max_failed_share=0.5,
        ).extract({path.name: path for path in found}, self.root, self.store(cache))

    def store(self, cache: str) -> Path:
        return self.folder / f"{cache}.h5"

    def passes(self) -> Counter[int]:
        """Passes of the encoder, by process."""
        return Counter(map(int, self.log.read_text().split())) if self.log.exists() else Counter()

    def is_as_one_machine_makes_it(self, cache: str) -> bool:
        self.extract(self.local(), "local")
        return self.store(cache).read_bytes() == self.store("local").read_bytes()


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
    made = Place(tmp_path)
    made.draw(20)
    return made


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
    executor = shared.ray(make_engine, actors=1, **engine)
    with pytest.raises(InputError, match=rf"\A{words}\Z"):
        shared.extract(executor, "ray", encoding=replace(ENCODING, dtype="float16"))
    assert capsys.readouterr() == ("", "Ray: machines 2, workers 1, cores of each 1\n")
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
    encoding = read_encoder(tiny_encoder / "encoder.json").encoding("average", "float32")
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
    params["extract"].update(max_failed_share=0.5, max_pixels=10_000)
    params["runtime"].update(executor="ray", batch_size=BATCH)
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
        ([(8, 0)], None, 99, Share(1, 8)),
        ([(8, 0), (8, 0)], None, 99, Share(2, 8)),
        ([(8, 0), (8, 0)], 6, 99, Share(6, 2)),
        ([(8, 0), (8, 0)], 99, 99, Share(16, 1)),
        ([(8, 0), (8, 0)], None, 1, Share(1, 8)),
        ([(16, 0), (5, 0)], None, 99, Share(4, 5)),
        ([(0, 0), (8, 0)], None, 99, Share(1, 8)),
        ([(8, 2), (8, 0)], None, 99, Share(2, 0)),
        ([(8, 2), (8, 1)], 2, 99, Share(2, 0)),
        ([(8, 2)], 5, 99, Share(2, 0)),
    ],
)
def test_a_cluster_is_dealt_out(
    machines: list[tuple[int, int]], actors: int | None, batches: int, share: Share
) -> None:
    assert deal(machines, actors, batches) == share


def test_a_cluster_without_cores_is_told() -> None:
    with pytest.raises(InputError, match="the Ray cluster has no cores to give"):
        deal([(0, 0), (0, 1)], None, 9)


@pytest.fixture
def work(place: Place) -> Work:
    shards = ShardFolder(place.folder / "cache", ENCODING.fingerprint)
    shards.folder.mkdir(parents=True)
    mark = shards.folder / ".tmp-0-mark"
    mark.touch()
    return Work(
        make_engine=functools.partial(colours, place.log),
        input_size=32,
        max_pixels=10_000,
        dtype="float32",
        shards=shards,
        mark=mark,
        share=Share(1, 1),
        environment={},
        packages=cluster._packages(),
    )


def batch_of(*paths: Path) -> dict[str, str]:
    """Return a row with a batch of photos, each named by its content as always."""
    photos = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in paths}
    (batch,) = cluster._batches(photos, len(photos))
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


def test_a_full_disk_is_told_as_on_one_machine(work: Work, place: Place) -> None:
    def full(_: int | None) -> Engine:
        raise OSError(errno.ENOSPC, "No space left on device", "x.npz")

    told = answer(replace(work, make_engine=full), batch_of(place.root / "02.png"))
    with (
        pytest.raises(OSError, match="No space left on device") as caught,
        Progress("", 1, "") as p,
    ):
        cluster._gather([told], p, "")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "x.npz")


def test_a_vector_that_does_not_arrive_is_told(work: Work) -> None:
    photos = {"a" * 64: Path("a.jpg"), "b" * 64: Path("b.jpg")}
    work.shards.add(["a" * 64], np.ones((1, 3), np.float32))
    cluster._check_arrived(photos, Outcome(failed={"b" * 64: "empty"}), work.shards)
    with pytest.raises(InputError, match=r"^1 vectors that the workers wrote .* not seen here"):
        cluster._check_arrived(photos, Outcome(), work.shards)


def test_workers_are_told_their_backend_and_their_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    told = {"KERAS_BACKEND": "jax", "TF_NUM_INTRAOP_THREADS": "3"}
    assert cluster._environment(Share(2, 3)) == told
    monkeypatch.delenv("KERAS_BACKEND")
    assert cluster._environment(Share(2, 0)) == {}


def test_openvino_takes_no_more_than_its_cores(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    opset = openvino.opset13
    pixels = opset.parameter([-1, 32, 32, 3], np.uint8)
    mean = opset.reduce_mean(opset.convert(pixels, "f32"), np.array([1, 2]))
    openvino.save_model(openvino.Model([mean], [pixels]), tmp_path / "colours.xml")
    engine = OpenVINOEngine(tmp_path / "colours.xml", BATCH, cores=1)
    assert engine._compiled.get_property("INFERENCE_NUM_THREADS") == 1
    photos = np.full((BATCH, 32, 32, 3), 7, np.uint8)
    assert np.array_equal(engine.encode(photos), np.full((BATCH, 3), 7.0))
