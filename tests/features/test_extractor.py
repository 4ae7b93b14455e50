import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from filelock import FileLock

from pipeline.errors import InputError
from pipeline.features import extractor, photos
from pipeline.features.encoders.engines import Engine, KerasEngine, Pixels, Vectors
from pipeline.features.encoders.networks import with_preprocessing
from pipeline.features.encoders.pretrained import load_encoder
from pipeline.features.executors import local
from pipeline.features.executors.local import EncodeStats, LocalExecutor
from pipeline.features.extractor import ExtractionResult
from pipeline.features.shard_cache import ShardFolder
from pipeline.features.store import FeatureStore
from tests.conftest import ENCODING, encoded, make_photo
from tests.support.extraction import BATCH, Colours, Place, spoil


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place.drawn(tmp_path, 10)


def test_every_photo_gets_its_own_vector(place: Place) -> None:
    result = place.extract()
    store = place.check()
    assert len(store.image_ids) == 10
    assert (result.encoded.computed, result.encoded.passes, result.known) == (10, 3, 0)
    assert result.failed == result.encoded.failed == {}
    assert result.fingerprint == store.fingerprint
    assert store.encoding == ENCODING
    data = (place.root / "03.png").read_bytes()
    assert result.photos["03.png"] == hashlib.sha256(data).hexdigest()


def test_the_second_run_computes_nothing(place: Place) -> None:
    first = place.extract()
    bytes_before = place.store.read_bytes()
    place.store.unlink()  # as DVC does
    again = place.extract()
    assert (again.encoded, again.known, again.photos) == (EncodeStats(), 10, first.photos)
    assert len(place.engines) == 1  # the network was not even loaded
    assert place.store.read_bytes() == bytes_before


def test_one_more_photo_is_one_more_pass_of_one_photo(place: Place) -> None:
    place.extract()
    place.draw(77)
    result = place.extract()
    assert (result.known, result.encoded.computed, result.encoded.passes) == (10, 1, 1)
    assert len(place.check().image_ids) == 11


def test_a_photo_less_is_a_row_less(place: Place) -> None:
    place.extract()
    (place.root / "04.png").unlink()
    assert place.extract().encoded.computed == 0
    assert "04.png" not in place.check().image_ids


def test_a_renamed_photo_computes_nothing(place: Place) -> None:
    place.extract()
    (place.root / "04.png").rename(place.root / "zz.jpg")
    assert place.extract().encoded.computed == 0
    assert place.check().image_ids[-1] == "zz.jpg"


def test_a_photo_with_new_content_is_computed_again(place: Place) -> None:
    place.extract()
    place.write("04.png", encoded(make_photo(seed=99), "PNG"))
    assert place.extract().encoded.computed == 1
    place.check()


def test_two_names_of_one_content_are_one_computation_and_two_rows(place: Place) -> None:
    place.write("copy.png", (place.root / "04.png").read_bytes())
    assert place.extract().encoded.computed == 10
    store = place.check()
    assert len(store.image_ids) == 11
    assert np.array_equal(*store.read(["04.png", "copy.png"]))


def test_failed_photos_have_a_reason_and_shift_no_row(place: Place) -> None:
    reasons = spoil(place)
    place.extract()
    store = place.check()
    assert store.image_ids == ["01.png", "02.png", "03.png", "05.png", "06.png", "07.png", "08.png"]
    assert sorted(store.failed) == sorted(reasons)
    for image_id, reason in reasons.items():
        assert store.failed[image_id].startswith(reason)


def test_both_names_of_a_content_that_cannot_be_decoded_fail(place: Place) -> None:
    place.write("bad 1.png", b"<html>")
    place.write("bad 2.png", b"<html>")
    result = place.extract()
    assert sorted(result.failed) == ["bad 1.png", "bad 2.png"]
    assert len(place.check().image_ids) == 10


def test_a_photo_of_which_nothing_is_seen_fails_and_shifts_no_row(place: Place) -> None:
    black = make_photo().point(lambda _: 0)
    place.write("05 black.png", encoded(black, "PNG"))
    reason = "the encoder gives nothing but zeros for it, as float32 at least"
    for _ in range(2):  # it is not taken for one that is known
        result = place.extract()
        assert result.failed == {"05 black.png": reason}
        assert place.check().failed == result.failed
    assert (result.known, result.encoded.computed, result.encoded.passes) == (10, 0, 1)


def test_a_mended_photo_comes_back(place: Place) -> None:
    good = (place.root / "04.png").read_bytes()
    place.write("04.png", good[:-30])
    assert list(place.extract().failed) == ["04.png"]
    place.write("04.png", good)
    result = place.extract()
    assert (result.failed, result.encoded.computed) == ({}, 1)
    place.check()


def test_too_many_failures_write_no_store_and_lose_nothing(place: Place) -> None:
    spoil(place)
    with pytest.raises(InputError) as caught:
        place.extract(max_failed_share=0.4)
    message = str(caught.value)
    assert message.startswith("7 of 14 photos cannot be used, the first 00.png: empty file; ")
    assert "extract.max_failed_share in params.yaml" in message
    assert not place.store.exists()
    result = place.extract(max_failed_share=0.5)
    assert result.encoded.computed == 0
    place.check()


def test_a_single_failure_of_few_photos_is_allowed_unless_none_is(place: Place) -> None:
    place.write("04.png", b"")
    with pytest.raises(InputError, match="1 of 10 photos cannot be used"):
        place.extract(max_failed_share=0.0)
    assert list(place.extract(max_failed_share=0.05).failed) == ["04.png"]
    place.write("05.png", b"")
    with pytest.raises(InputError, match="2 of 10 photos cannot be used"):
        place.extract(max_failed_share=0.05)


@pytest.mark.parametrize("names", [["a.png", "b.png"], []])
def test_no_usable_photo_at_all_writes_no_store(tmp_path: Path, names: list[str]) -> None:
    place = Place(tmp_path)
    place.draw()
    for name in names:
        place.write(name, b"<html>")
    with pytest.raises(InputError, match=rf"{len(names)} of {len(names)} photos cannot be used"):
        place.extract(max_failed_share=1)
    assert not place.store.exists()


@pytest.mark.parametrize("breaks_before", [1, 2, 3])
def test_a_run_cut_off_goes_on_and_ends_as_if_it_had_not_been(
    place: Place, tmp_path: Path, breaks_before: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        place.extract(Colours(breaks_before))
    assert not place.store.exists()
    done = (breaks_before - 1) * BATCH
    result = place.extract()
    assert (result.known, result.encoded.computed) == (done, 10 - done)
    whole = Place.drawn(tmp_path / "whole", 10)
    whole.extract()
    assert place.store.read_bytes() == whole.store.read_bytes()


def test_what_killed_writers_left_is_removed(place: Place) -> None:
    place.extract()
    before = place.store.read_bytes()
    shards = place.shards().folder
    left = [shards / ".tmp-1-a.npz", place.store.with_name(f".tmp-1-{place.store.name}")]
    others = place.store.with_name(".tmp-1-other.h5")
    for path in (*left, others):
        path.write_bytes(b"half")
    place.extract()
    assert not any(path.exists() for path in left)
    assert others.exists()
    assert place.store.read_bytes() == before


def truncated(data: bytes) -> bytes:
    return data[:-40]


def with_another_vector(data: bytes) -> bytes:
    """Change a vector, which nobody sees who looks at the keys alone."""
    place = data.index(b"vectors.npy") + 160
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("damaged", [truncated, with_another_vector])
def test_damaged_shards_are_computed_again(
    place: Place, damaged: Callable[[bytes], bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    place.extract()
    before = place.store.read_bytes()
    shards = sorted(place.cache.rglob("*.npz"))[:2]
    for shard in shards:
        shard.write_bytes(damaged(shard.read_bytes()))
    result = place.extract()
    assert 10 - result.known == result.encoded.computed
    assert BATCH < result.encoded.computed <= 2 * BATCH
    said = capsys.readouterr().out
    assert all(f"{shard} is damaged" in said for shard in shards)
    assert place.store.read_bytes() == before


@pytest.mark.parametrize("damaged", [truncated, with_another_vector])
@pytest.mark.parametrize(("times", "repaired"), [(2, True), (3, False)])
def test_a_disk_that_damages_what_it_was_just_given_is_given_up(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    damaged: Callable[[bytes], bytes],
    times: int,
    repaired: bool,
) -> None:
    keep = ShardFolder.add
    rounds: set[int] = set()

    def keep_and_damage(self: ShardFolder, keys: list[str], vectors: npt.NDArray[Any]) -> None:
        before = set(self.folder.glob("*.npz"))
        keep(self, keys, vectors)
        if len(place.engines) <= times and len(place.engines) not in rounds:
            rounds.add(len(place.engines))
            (shard,) = set(self.folder.glob("*.npz")) - before
            shard.write_bytes(damaged(shard.read_bytes()))

    monkeypatch.setattr(ShardFolder, "add", keep_and_damage)
    if repaired:
        place.extract()
        place.check()
    else:
        with pytest.raises(InputError, match=r"was found damaged 3 times: .*runtime\.cache"):
            place.extract()
        assert not place.store.exists()
    assert len(rounds) == times


def test_another_encoding_has_its_own_vectors_and_going_back_is_free(place: Place) -> None:
    place.extract()
    before = place.store.read_bytes()
    other = replace(ENCODING, dtype="float16")
    assert place.extract(encoding=other).encoded.computed == 10
    assert place.check().features.dtype == np.float16
    assert place.extract().encoded.computed == 0
    assert place.store.read_bytes() == before


def test_a_second_writer_is_told_to_wait(place: Place) -> None:
    place.extract()
    (folder,) = (place.cache / "features").iterdir()
    with FileLock(folder / "lock"):
        with pytest.raises(InputError, match=r"another extraction is writing to .*: wait"):
            place.extract()
        other = replace(ENCODING, dtype="float16")
        assert place.extract(encoding=other).encoded.computed == 10
    assert place.extract().encoded.computed == 0


def test_a_second_writer_of_the_same_store_is_told_to_wait(place: Place) -> None:
    place.extract()
    before = place.store.read_bytes()
    place.draw(77)
    with (
        FileLock(place.store.parent / ".features.h5.lock"),
        pytest.raises(InputError, match=r"another extraction is writing to .*artifacts: wait"),
    ):
        place.extract(cache=place.folder / "another")
    assert place.store.read_bytes() == before


def test_the_lock_is_given_back_after_a_failure(place: Place) -> None:
    with pytest.raises(KeyboardInterrupt):
        place.extract(Colours(1))
    place.extract()


def test_a_photo_that_changes_while_it_is_read_fails(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path) -> bytes:
        return photos.read_photo(path) + b"more" * (path.name == "04.png")

    # Digests are taken first, pixels afterwards.
    monkeypatch.setattr(local, "read_photo", read)
    assert place.extract().failed == {"04.png": "changed while it was being read"}
    assert len(place.check().image_ids) == 9


def test_a_photo_that_vanishes_while_it_is_read_fails(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path, folder: Path | None = None) -> bytes:
        data = photos.read_photo(path, folder)
        if path.name == "04.png":
            path.unlink()
        return data

    monkeypatch.setattr(extractor, "read_photo", read)
    assert list(place.extract().failed) == ["04.png"]


@pytest.mark.parametrize(
    ("pooling", "shape"), [("average", (1024,)), ("grid", (1, 1024)), ("quarters", (4, 1024))]
)
def test_a_real_encoder_gives_the_same_bytes_after_an_interruption(
    place: Place, tiny_encoder: Path, pooling: str, shape: tuple[int, ...]
) -> None:
    network = with_preprocessing(load_encoder(tiny_encoder, pooling), "MobileNet")
    encoding = replace(ENCODING, pooling=pooling, dtype="float16")

    class Breaks(KerasEngine):
        runs = 0

        def _infer(self, part: Pixels) -> Vectors:
            self.runs += 1
            if self.runs > 1:
                raise KeyboardInterrupt
            return super()._infer(part)

    def run(kind: Callable[[Any, int], Engine], cache: str) -> ExtractionResult:
        engine = kind(network, BATCH)
        return place.extract(engine, encoding=encoding, cache=place.folder / cache)

    run(KerasEngine, "whole")
    whole = place.store.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        run(Breaks, "parts")
    assert run(KerasEngine, "parts").encoded.computed == 10 - BATCH
    assert place.store.read_bytes() == whole
    store = FeatureStore.open(place.store)
    assert store.shape == shape
    assert store.read(store.image_ids).std(axis=0).max() > 0.1


def test_the_photo_folder_may_be_a_link_to_another_disk(place: Place) -> None:
    disk, root = place.folder / "disk", place.folder / "data"
    place.root.rename(disk)
    root.mkdir()
    (root / "images").symlink_to(disk)
    (disk / "out.png").symlink_to(place.folder / "outside.png")
    (place.folder / "outside.png").write_bytes(encoded(make_photo(), "PNG"))
    found = {path.name: path for path in sorted((root / "images").iterdir())}
    result = place.extractor().extract(found, root, place.store)
    assert set(result.failed) == {"out.png"}
    assert len(result.photos) == len(found) - 1


def test_a_cache_that_cannot_be_written_is_a_clear_error(place: Place) -> None:
    (place.folder / "cache").write_bytes(b"a file where the folder should be")
    with pytest.raises(InputError, match=r"cannot be written to \(.*\): .*runtime\.cache"):
        place.extract()


def test_only_new_photos_are_given_to_the_executor_with_what_to_show_beside(
    place: Place,
) -> None:
    place.extract()
    place.draw(77)
    place.write("bad.png", b"")
    given: list[Any] = []

    class Spy(LocalExecutor):
        def encode(self, found: Any, *arguments: Any) -> EncodeStats:
            given.extend([found, *arguments])
            return super().encode(found, *arguments)

    spy = Spy(Colours, 1, 3600)
    place.extract(executor=spy)
    sha = hashlib.sha256((place.root / "77.png").read_bytes()).hexdigest()
    found, encoding, max_pixels, shards, note = given
    assert found == {sha: place.root / "77.png"}
    assert (encoding, max_pixels) == (ENCODING, 10_000)
    assert shards.folder == place.shards().folder
    assert note == "10 cached, 1 failed"
