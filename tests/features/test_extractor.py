import errno
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from filelock import FileLock

from pipeline import files
from pipeline.errors import InputError
from pipeline.features import extractor
from pipeline.features.decoding import photos
from pipeline.features.encoders.engines import Engine, KerasEngine, Pixels, Vectors
from pipeline.features.encoders.networks import with_preprocessing
from pipeline.features.encoders.pretrained import load_encoder
from pipeline.features.executors.local import EncodeStats, LocalExecutor
from pipeline.features.extractor import ExtractionResult
from pipeline.features.shard_cache import ShardCache
from pipeline.features.store import FeatureStore
from pipeline.files import read_json
from pipeline.system import dvc_cache
from tests.conftest import FEATURE_SPEC, encoded, make_photo
from tests.support.extraction import BATCH, MeanColourEngine, Workspace, add_bad_photos


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.drawn(tmp_path, 10)


def test_every_photo_gets_its_own_vector(workspace: Workspace) -> None:
    result = workspace.extract()
    store = workspace.check()
    assert len(store.image_ids) == 10
    assert (result.stats.computed, result.stats.passes, result.cached) == (10, 3, 0)
    assert result.failed == result.stats.failed == {}
    assert result.fingerprint == store.fingerprint
    assert store.feature_spec == FEATURE_SPEC
    data = (workspace.root / "03.png").read_bytes()
    assert result.photos["03.png"] == hashlib.sha256(data).hexdigest()


def test_the_second_run_computes_nothing(workspace: Workspace) -> None:
    first = workspace.extract()
    original = workspace.store.read_bytes()
    workspace.store.unlink()  # as DVC does
    again = workspace.extract()
    assert (again.stats, again.cached, again.photos) == (EncodeStats(), 10, first.photos)
    assert len(workspace.engines) == 1  # the network was not even loaded
    assert workspace.store.read_bytes() == original


def test_a_new_photo_costs_one_pass_of_one_photo(workspace: Workspace) -> None:
    workspace.extract()
    workspace.draw(77)
    result = workspace.extract()
    assert (result.cached, result.stats.computed, result.stats.passes) == (10, 1, 1)
    assert len(workspace.check().image_ids) == 11


def test_a_removed_photo_is_no_longer_a_row(workspace: Workspace) -> None:
    workspace.extract()
    (workspace.root / "04.png").unlink()
    assert workspace.extract().stats.computed == 0
    assert "04.png" not in workspace.check().image_ids


def test_a_renamed_photo_computes_nothing(workspace: Workspace) -> None:
    workspace.extract()
    (workspace.root / "04.png").rename(workspace.root / "zz.jpg")
    assert workspace.extract().stats.computed == 0
    assert workspace.check().image_ids[-1] == "zz.jpg"


def test_a_photo_with_new_content_is_computed_again(workspace: Workspace) -> None:
    workspace.extract()
    workspace.write("04.png", encoded(make_photo(seed=99), "PNG"))
    assert workspace.extract().stats.computed == 1
    workspace.check()


def test_a_photo_under_two_names_is_encoded_once_and_is_two_rows(workspace: Workspace) -> None:
    workspace.write("copy.png", (workspace.root / "04.png").read_bytes())
    assert workspace.extract().stats.computed == 10
    store = workspace.check()
    assert len(store.image_ids) == 11
    assert np.array_equal(*store.read(["04.png", "copy.png"]))


def test_failed_photos_are_listed_with_a_reason_and_shift_no_row(workspace: Workspace) -> None:
    reasons = add_bad_photos(workspace)
    workspace.extract()
    store = workspace.check()
    assert store.image_ids == ["01.png", "02.png", "03.png", "05.png", "06.png", "07.png", "08.png"]
    assert sorted(store.failed) == sorted(reasons)
    for image_id, reason in reasons.items():
        assert store.failed[image_id].startswith(reason)


def test_a_damaged_photo_under_two_names_fails_under_both(workspace: Workspace) -> None:
    workspace.write("bad 1.png", b"<html>")
    workspace.write("bad 2.png", b"<html>")
    result = workspace.extract()
    assert sorted(result.failed) == ["bad 1.png", "bad 2.png"]
    assert len(workspace.check().image_ids) == 10


def test_a_photo_with_a_zero_vector_fails_and_shifts_no_row(workspace: Workspace) -> None:
    black = make_photo().point(lambda _: 0)
    workspace.write("05 black.png", encoded(black, "PNG"))
    reason = "the encoder's output for it is all zeros, at least as float32"
    for _ in range(2):  # the second run does not find it in the cache
        result = workspace.extract()
        assert result.failed == {"05 black.png": reason}
        assert workspace.check().failed == result.failed
    assert (result.cached, result.stats.computed, result.stats.passes) == (10, 0, 1)


def test_a_repaired_photo_is_encoded_again(workspace: Workspace) -> None:
    good = (workspace.root / "04.png").read_bytes()
    workspace.write("04.png", good[:-30])
    assert list(workspace.extract().failed) == ["04.png"]
    workspace.write("04.png", good)
    result = workspace.extract()
    assert (result.failed, result.stats.computed) == ({}, 1)
    workspace.check()


def test_with_too_many_failures_no_store_is_written_but_finished_work_is_kept(
    workspace: Workspace,
) -> None:
    add_bad_photos(workspace)
    with pytest.raises(InputError) as caught:
        workspace.extract(max_failed_share=0.4)
    message = str(caught.value)
    assert message.startswith("7 of 14 photos failed, the first is 00.png: empty file; ")
    assert "extract.max_failed_share in params.yaml" in message
    assert not workspace.store.exists()
    file = workspace.cache / "failed_photos.json"
    assert f"all are in {file}: fix them" in message
    all_failed = read_json(file, "")
    result = workspace.extract(max_failed_share=0.5)
    assert result.stats.computed == 0
    assert result.failed == all_failed
    assert not file.exists()
    workspace.check()


def test_a_single_failure_is_allowed_unless_the_allowed_share_is_zero(workspace: Workspace) -> None:
    workspace.write("04.png", b"")
    with pytest.raises(InputError, match="1 of 10 photos failed"):
        workspace.extract(max_failed_share=0.0)
    assert list(workspace.extract(max_failed_share=0.05).failed) == ["04.png"]
    workspace.write("05.png", b"")
    with pytest.raises(InputError, match="2 of 10 photos failed"):
        workspace.extract(max_failed_share=0.05)


@pytest.mark.parametrize("names", [["a.png", "b.png"], []])
def test_without_any_usable_photo_no_store_is_written(tmp_path: Path, names: list[str]) -> None:
    workspace = Workspace(tmp_path)
    workspace.draw()
    for name in names:
        workspace.write(name, b"<html>")
    message = f"{len(names)} of {len(names)} photos failed" if names else "there are no photos"
    with pytest.raises(InputError, match=message):
        workspace.extract(max_failed_share=1)
    assert not workspace.store.exists()


@pytest.mark.parametrize("interrupt_before", [1, 2, 3])
def test_an_interrupted_run_resumes_and_writes_the_same_store(
    workspace: Workspace, tmp_path: Path, interrupt_before: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        workspace.extract(MeanColourEngine(interrupt_before))
    assert not workspace.store.exists()
    done = (interrupt_before - 1) * BATCH
    result = workspace.extract()
    assert (result.cached, result.stats.computed) == (done, 10 - done)
    uninterrupted = Workspace.drawn(tmp_path / "uninterrupted", 10)
    uninterrupted.extract()
    assert workspace.store.read_bytes() == uninterrupted.store.read_bytes()


def test_leftovers_of_killed_writers_are_removed(workspace: Workspace) -> None:
    workspace.extract()
    original = workspace.store.read_bytes()
    shards = workspace.shards().folder
    leftovers = [
        shards / ".tmp-1-a.npz",
        workspace.store.with_name(f".tmp-1-{workspace.store.name}"),
    ]
    unrelated = workspace.store.with_name(".tmp-1-other.h5")
    for path in (*leftovers, unrelated):
        path.write_bytes(b"half")
    workspace.extract()
    assert not any(path.exists() for path in leftovers)
    assert unrelated.exists()
    assert workspace.store.read_bytes() == original


def truncated(data: bytes) -> bytes:
    return data[:-40]


def with_another_vector(data: bytes) -> bytes:
    """Change a vector, which reading the keys does not show."""
    offset = data.index(b"vectors.npy") + 160
    return data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]


@pytest.mark.parametrize("damage", [truncated, with_another_vector])
def test_photos_of_damaged_shards_are_encoded_again(
    workspace: Workspace, damage: Callable[[bytes], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.extract()
    original = workspace.store.read_bytes()
    shards = sorted(workspace.cache.rglob("*.npz"))[:2]
    for shard in shards:
        shard.write_bytes(damage(shard.read_bytes()))
    result = workspace.extract()
    assert 10 - result.cached == result.stats.computed
    assert BATCH < result.stats.computed <= 2 * BATCH
    output = capsys.readouterr().out
    assert all(f"{shard} is damaged" in output for shard in shards)
    assert workspace.store.read_bytes() == original


@pytest.mark.parametrize("damage", [truncated, with_another_vector])
@pytest.mark.parametrize(("times", "repaired"), [(2, True), (3, False)])
def test_a_disk_that_damages_new_shards_is_given_up_after_three_attempts(
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[bytes], bytes],
    times: int,
    repaired: bool,
) -> None:
    add = ShardCache.add
    damaged_attempts: set[int] = set()

    def add_and_damage(self: ShardCache, keys: list[str], vectors: npt.NDArray[Any]) -> None:
        existing = set(self.folder.glob("*.npz"))
        add(self, keys, vectors)
        attempt = len(workspace.engines)
        if attempt <= times and attempt not in damaged_attempts:
            damaged_attempts.add(attempt)
            (shard,) = set(self.folder.glob("*.npz")) - existing
            shard.write_bytes(damage(shard.read_bytes()))

    monkeypatch.setattr(ShardCache, "add", add_and_damage)
    if repaired:
        workspace.extract()
        workspace.check()
    else:
        with pytest.raises(InputError, match=r"was found damaged 3 times: .*runtime\.cache"):
            workspace.extract()
        assert not workspace.store.exists()
    assert len(damaged_attempts) == times


def test_another_spec_has_its_own_vectors_and_going_back_is_free(workspace: Workspace) -> None:
    workspace.extract()
    original = workspace.store.read_bytes()
    other = replace(FEATURE_SPEC, dtype="float16")
    assert workspace.extract(feature_spec=other).stats.computed == 10
    assert workspace.check().features.dtype == np.float16
    assert workspace.extract().stats.computed == 0
    assert workspace.store.read_bytes() == original


def test_a_second_writer_of_the_cache_waits_and_finds_the_vectors_of_the_first(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = FileLock(workspace.shards().folder / "lock", thread_local=False)
    workspace.shards().folder.mkdir(parents=True)
    lines: Queue[str] = Queue()
    monkeypatch.setattr(files, "print", lambda line, **_: lines.put(line), raising=False)
    with ThreadPoolExecutor() as pool:
        with lock:
            other = replace(FEATURE_SPEC, dtype="float16")
            assert workspace.extract(feature_spec=other).stats.computed == 10
            second = pool.submit(workspace.extract)
            assert "waiting until it ends" in lines.get(timeout=60)
            workspace.encode(workspace.executor())
        assert (second.result().cached, second.result().stats.computed) == (10, 0)


def test_another_writer_of_the_same_store_is_refused(
    workspace: Workspace,
) -> None:
    workspace.extract()
    original = workspace.store.read_bytes()
    workspace.draw(77)
    with (
        FileLock(workspace.store.parent / ".features.h5.lock"),
        pytest.raises(InputError, match=r"another extraction is writing to .*artifacts: wait"),
    ):
        workspace.extract(cache=workspace.folder / "another")
    assert workspace.store.read_bytes() == original


def test_the_lock_is_released_after_a_failure(workspace: Workspace) -> None:
    with pytest.raises(KeyboardInterrupt):
        workspace.extract(MeanColourEngine(1))
    workspace.extract()


# Vectors of an earlier store.


def encoded_elsewhere(workspace: Workspace) -> Path:
    """Extract, and keep nothing but a copy of the store, as `dvc pull` brings it; return that."""
    workspace.extract()
    earlier = workspace.store.rename(workspace.folder / "earlier.h5")
    shutil.rmtree(workspace.cache)
    return earlier


def test_a_new_photo_in_a_clone_costs_one_pass_of_one_photo(workspace: Workspace) -> None:
    earlier = encoded_elsewhere(workspace)
    original = earlier.read_bytes()
    result = workspace.extract(earlier_stores=[earlier])
    assert (result.cached, result.stats.computed, len(workspace.engines)) == (10, 0, 1)
    assert workspace.store.read_bytes() == original
    assert workspace.cached_count() == 0  # nothing was copied
    workspace.draw(77)
    result = workspace.extract(earlier_stores=[earlier])
    assert (result.cached, result.stats.computed, result.stats.passes) == (10, 1, 1)
    assert len(workspace.check().image_ids) == 11


def test_a_damaged_row_of_an_earlier_store_is_encoded_again(workspace: Workspace) -> None:
    earlier = encoded_elsewhere(workspace)
    original = earlier.read_bytes()
    vector = FeatureStore.open(earlier).features[3].tobytes()
    earlier.write_bytes(original.replace(vector, b"\1" + vector[1:]))
    result = workspace.extract(earlier_stores=[earlier])
    assert (result.cached, result.stats.computed) == (9, 1)
    assert workspace.store.read_bytes() == original


def test_an_earlier_store_of_another_spec_is_not_used(workspace: Workspace) -> None:
    earlier = encoded_elsewhere(workspace)
    other = replace(FEATURE_SPEC, weights_sha256="c" * 64)
    assert workspace.extract(feature_spec=other, earlier_stores=[earlier]).stats.computed == 10


def test_a_photo_whose_shard_is_damaged_comes_from_an_earlier_store(workspace: Workspace) -> None:
    workspace.extract()
    earlier = workspace.store.rename(workspace.folder / "earlier.h5")
    for shard in workspace.cache.rglob("*.npz"):
        shard.write_bytes(with_another_vector(shard.read_bytes()))
    result = workspace.extract(earlier_stores=[earlier])
    assert result.stats.computed == 0
    assert workspace.store.read_bytes() == earlier.read_bytes()


# Links.


def test_a_link_may_lead_to_the_same_data_set_or_into_dvcs_cache_and_nowhere_else(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = workspace.folder / "elsewhere/files/md5"
    monkeypatch.setattr(dvc_cache, "find_object_folder", objects.resolve)
    for number, target in enumerate([objects, workspace.folder / "stranger/files/md5"]):
        photo = target / "ab" / ("0" * 30)
        photo.parent.mkdir(parents=True)
        (workspace.root / f"{number:02}.png").rename(photo)
        (workspace.root / f"{number:02}.png").symlink_to(photo)
    (workspace.folder / "secret.png").write_bytes((workspace.root / "05.png").read_bytes())
    (workspace.root / "02.png").unlink()
    (workspace.root / "02.png").symlink_to("../secret.png")
    (workspace.root / "more").mkdir()
    (workspace.root / "more/a.png").symlink_to("../03.png")
    (workspace.root / "more/b.png").symlink_to("../../secret.png")
    photos = workspace.photos()
    photos |= {f"more/{name}": photos["more"] / name for name in ("a.png", "b.png")}
    del photos["more"]
    _, failed = extractor.digest_photos(photos, workspace.root)
    reason = "a link to a file outside the photo folder"
    assert failed == dict.fromkeys(["01.png", "02.png", "more/b.png"], reason)


# Faults of the system.


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ESTALE, errno.ETIMEDOUT])
@pytest.mark.parametrize("buffered", [True, False])
def test_a_fault_of_the_system_ends_the_extraction_and_is_no_photos_fault(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, number: int, *, buffered: bool
) -> None:
    read_bytes, reads = Path.read_bytes, Counter[Path]()

    def fail_once(path: Path) -> bytes:
        reads[path] += 1
        if path.name == "09.png" and reads[path] == 2 - buffered:
            raise OSError(number, os.strerror(number), str(path))
        return read_bytes(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail_once)
        patch.setattr(extractor, "_BUFFER_BYTES", buffered << 20)
        with pytest.raises(InputError) as caught:
            workspace.extract()
    path = workspace.root / "09.png"
    assert str(caught.value).startswith(f"{path} could not be read ({os.strerror(number)})")
    assert not workspace.store.exists()
    result = workspace.extract()
    assert (result.failed, len(workspace.check().image_ids)) == ({}, 10)
    assert result.cached == (0 if buffered else 2 * BATCH)


# Reading each photo once.


@pytest.fixture
def reads(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often each photo of the workspace is read from the disk."""
    counts: Counter[str] = Counter()
    read_bytes = Path.read_bytes

    def count_and_read(path: Path) -> bytes:
        if path.parent == workspace.root:
            counts[path.name] += 1
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", count_and_read)
    return counts


def test_a_new_photo_is_read_once(workspace: Workspace, reads: Counter[str]) -> None:
    workspace.extract()
    assert reads == Counter({f"{number:02}.png": 1 for number in range(10)})
    workspace.check()


def test_photos_beyond_the_buffers_size_are_read_again(
    workspace: Workspace, reads: Counter[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    workspace.extract(cache=tmp_path / "other")
    all_buffered = workspace.store.read_bytes()
    reads.clear()
    largest = max(path.stat().st_size for path in workspace.photos().values())
    monkeypatch.setattr(extractor, "_BUFFER_BYTES", 3 * largest)
    workspace.extract()
    assert set(reads) == set(workspace.photos())
    assert reads.total() < 2 * 10
    assert list(reads.values()).count(2) <= 10 - 3
    assert workspace.store.read_bytes() == all_buffered


@pytest.mark.parametrize("accelerated", [False, True], ids=["threads", "processes"])
def test_the_buffer_holds_only_new_photos_and_is_empty_in_the_end(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, *, accelerated: bool
) -> None:
    workspace.extract()
    add_bad_photos(workspace)
    workspace.draw(77, 78)
    held: list[bool] = []
    free: list[int] = []

    class SpyExecutor(LocalExecutor):
        def encode(self, files: Any, *arguments: Any) -> EncodeStats:
            held.extend(file.data is not None for file in files.values())
            stats = super().encode(files, *arguments)
            assert all(file.data is None for file in files.values())
            return stats

    add = extractor._PhotoBuffer.add

    def add_and_record(buffer: extractor._PhotoBuffer, sha: str, data: bytes) -> None:
        add(buffer, sha, data)
        free.append(buffer._free)

    monkeypatch.setattr(extractor._PhotoBuffer, "add", add_and_record)
    engine = MeanColourEngine(accelerated=accelerated)
    workspace.extract(executor=SpyExecutor(lambda: engine, 1, 3600))
    # The other bad photos cannot be read.
    new = ["04.png", "09.png", "large.png", "77.png", "78.png"]
    sizes = [(workspace.root / name).stat().st_size for name in new]
    assert held == [True] * len(new)
    assert min(free) == extractor._BUFFER_BYTES - sum(sizes)


def test_a_photo_that_changes_before_it_is_decoded_is_encoded_as_it_was_digested(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = (workspace.root / "04.png").read_bytes()

    def read_and_change(path: Path, folder: Path | None = None) -> bytes:
        data = photos.read_photo(path, folder)
        if path.name == "04.png":
            path.write_bytes(encoded(make_photo(seed=99), "PNG"))
        return data

    monkeypatch.setattr(extractor, "read_photo", read_and_change)
    result = workspace.extract()
    assert result.photos["04.png"] == hashlib.sha256(original).hexdigest()
    workspace.write("04.png", original)
    workspace.check()


def test_an_unbuffered_photo_that_changes_before_it_is_decoded_fails(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_photo = photos.read_photo

    def read(path: Path, folder: Path | None = None) -> bytes:
        return read_photo(path, folder) + b"more" * (path.name == "04.png")

    monkeypatch.setattr(extractor, "_BUFFER_BYTES", 0)
    # `PhotoFile.take` uses this function; the digest was computed from the original bytes.
    monkeypatch.setattr(photos, "read_photo", read)
    assert workspace.extract().failed == {"04.png": "changed while it was being read"}
    assert len(workspace.check().image_ids) == 9


def test_an_unbuffered_photo_that_vanishes_before_it_is_decoded_fails(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_and_remove(path: Path, folder: Path | None = None) -> bytes:
        data = photos.read_photo(path, folder)
        if path.name == "04.png":
            path.unlink()
        return data

    monkeypatch.setattr(extractor, "_BUFFER_BYTES", 0)
    monkeypatch.setattr(extractor, "read_photo", read_and_remove)
    assert list(workspace.extract().failed) == ["04.png"]


@pytest.mark.parametrize(
    ("pooling", "shape"), [("average", (1024,)), ("grid", (1, 1024)), ("quarters", (4, 1024))]
)
def test_with_a_real_encoder_an_interrupted_run_writes_the_same_store(
    workspace: Workspace, tiny_encoder: Path, pooling: str, shape: tuple[int, ...]
) -> None:
    network = with_preprocessing(load_encoder(tiny_encoder, pooling), "MobileNet")
    feature_spec = replace(FEATURE_SPEC, pooling=pooling, dtype="float16")

    class InterruptedEngine(KerasEngine):
        runs = 0

        def _infer(self, images: Pixels) -> Vectors:
            self.runs += 1
            if self.runs > 1:
                raise KeyboardInterrupt
            return super()._infer(images)

    def run(engine_class: Callable[[Any, int], Engine], cache: str) -> ExtractionResult:
        engine = engine_class(network, BATCH)
        return workspace.extract(engine, feature_spec=feature_spec, cache=workspace.folder / cache)

    run(KerasEngine, "uninterrupted")
    uninterrupted = workspace.store.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        run(InterruptedEngine, "interrupted")
    assert run(KerasEngine, "interrupted").stats.computed == 10 - BATCH
    assert workspace.store.read_bytes() == uninterrupted
    store = FeatureStore.open(workspace.store)
    assert store.shape == shape
    assert store.read(store.image_ids).std(axis=0).max() > 0.1


def test_the_photo_folder_may_be_a_link_to_another_disk(workspace: Workspace) -> None:
    disk, root = workspace.folder / "disk", workspace.folder / "data"
    workspace.root.rename(disk)
    root.mkdir()
    (root / "images").symlink_to(disk)
    (disk / "out.png").symlink_to(workspace.folder / "outside.png")
    (workspace.folder / "outside.png").write_bytes(encoded(make_photo(), "PNG"))
    images = {path.name: path for path in sorted((root / "images").iterdir())}
    result = workspace.extractor().extract(images, root, workspace.store)
    assert set(result.failed) == {"out.png"}
    assert len(result.photos) == len(images) - 1


def test_a_cache_that_cannot_be_written_is_a_clear_error(workspace: Workspace) -> None:
    (workspace.folder / "cache").write_bytes(b"a file where the folder should be")
    with pytest.raises(InputError, match=r"cannot be written to \(.*\): .*runtime\.cache"):
        workspace.extract()


def test_the_executor_gets_only_new_photos_and_the_status(
    workspace: Workspace,
) -> None:
    workspace.extract()
    workspace.draw(77)
    workspace.write("bad.png", b"")
    received: list[Any] = []

    class SpyExecutor(LocalExecutor):
        def encode(self, files: Any, *arguments: Any) -> EncodeStats:
            received.extend([{sha: file.path for sha, file in files.items()}, *arguments])
            return super().encode(files, *arguments)

    spy = SpyExecutor(MeanColourEngine, 1, 3600)
    workspace.extract(executor=spy)
    sha = hashlib.sha256((workspace.root / "77.png").read_bytes()).hexdigest()
    paths, feature_spec, max_pixels, cache, status = received
    assert paths == {sha: workspace.root / "77.png"}
    assert (feature_spec, max_pixels) == (FEATURE_SPEC, 10_000)
    assert cache.folder == workspace.shards().folder
    assert status == "10 cached, 1 failed"
