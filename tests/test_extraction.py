import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from filelock import FileLock

from pipeline.errors import InputError
from pipeline.features import extraction, photos
from pipeline.features.encoders import Encoding
from pipeline.features.engines import Engine, KerasEngine
from pipeline.features.extraction import Extraction, Extractor
from pipeline.features.store import FeatureStore
from pipeline.features.weights import load_encoder
from tests.conftest import encoded, make_photo

BATCH = 4
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


class Colours(Engine):
    """Encodes a photo as its mean colours; can break down before a pass."""

    def __init__(self, breaks_before: int | None = None) -> None:
        super().__init__("MobileNet", BATCH)
        self.seen = 0
        self._breaks_before = breaks_before

    def encode(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        if self.passes + 1 == self._breaks_before:
            raise KeyboardInterrupt
        self.seen += len(batch)
        return super().encode(batch)

    def _run(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.asarray(batch.mean(axis=(1, 2)))


@dataclass
class Place:
    """A folder of photos, a cache and a store."""

    folder: Path
    engines: list[Colours] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.folder / "photos"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def store(self) -> Path:
        return self.folder / "artifacts" / "features.h5"

    def photos(self) -> dict[str, Path]:
        return {path.name: path for path in sorted(self.root.iterdir())}

    def draw(self, *numbers: int) -> None:
        self.root.mkdir(exist_ok=True)
        for number in numbers:
            self.write(f"{number:02}.png", encoded(make_photo(seed=number), "PNG"))

    def write(self, name: str, data: bytes) -> None:
        (self.root / name).write_bytes(data)

    def extractor(self, breaks_before: int | None = None, **changes: Any) -> Extractor:
        def make_engine() -> Engine:
            self.engines.append(Colours(breaks_before))
            return self.engines[-1]

        values: dict[str, Any] = {
            "encoding": ENCODING,
            "make_engine": make_engine,
            "cache": self.cache,
            "max_pixels": 10_000,
            "max_failed_share": 0.5,
            "workers": 2,
            "progress_seconds": 3600,
        }
        return Extractor(**(values | changes))

    def extract(self, breaks_before: int | None = None, **changes: Any) -> Extraction:
        extractor = self.extractor(breaks_before, **changes)
        return extractor.extract(self.photos(), self.root, self.store)

    def seen(self) -> int:
        return sum(engine.seen for engine in self.engines)

    def check(self) -> FeatureStore:
        """Check every row of the store against its photo; return the store."""
        store = FeatureStore.open(self.store)
        for image_id, vector in zip(store.image_ids, store.features, strict=True):
            data = (self.root / image_id).read_bytes()
            pixels = photos.decode(data, 32, 10_000).astype(np.float64) / 127.5 - 1
            assert np.allclose(vector, pixels.mean(axis=(0, 1)), atol=1e-3)
        assert sorted([*store.image_ids, *store.failed]) == sorted(self.photos())
        return store


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.draw(*range(10))
    return made


def test_every_photo_gets_its_own_vector(place: Place) -> None:
    result = place.extract()
    store = place.check()
    assert len(store.image_ids) == 10
    assert (result.computed, result.passes, result.failed) == (10, 3, {})
    assert result.fingerprint == store.fingerprint
    assert store.encoding == ENCODING
    data = (place.root / "03.png").read_bytes()
    assert result.photos["03.png"] == hashlib.sha256(data).hexdigest()
    assert set(result.seconds) == {"encoding", "waiting"}


def test_the_second_run_computes_nothing(place: Place) -> None:
    first = place.extract()
    bytes_before = place.store.read_bytes()
    place.store.unlink()  # as DVC does
    again = place.extract()
    assert (again.computed, again.passes, again.photos) == (0, 0, first.photos)
    assert len(place.engines) == 1  # the network was not even loaded
    assert place.store.read_bytes() == bytes_before


def test_one_more_photo_is_one_more_pass_of_one_photo(place: Place) -> None:
    place.extract()
    place.draw(77)
    result = place.extract()
    assert (result.computed, result.passes, place.engines[-1].seen) == (1, 1, 1)
    assert len(place.check().image_ids) == 11


def test_a_photo_less_is_a_row_less(place: Place) -> None:
    place.extract()
    (place.root / "04.png").unlink()
    assert place.extract().computed == 0
    assert "04.png" not in place.check().image_ids


def test_a_renamed_photo_computes_nothing(place: Place) -> None:
    place.extract()
    (place.root / "04.png").rename(place.root / "zz.jpg")
    assert place.extract().computed == 0
    assert place.check().image_ids[-1] == "zz.jpg"


def test_a_photo_with_new_content_is_computed_again(place: Place) -> None:
    place.extract()
    place.write("04.png", encoded(make_photo(seed=99), "PNG"))
    assert place.extract().computed == 1
    place.check()


def test_two_names_of_one_content_are_one_computation_and_two_rows(place: Place) -> None:
    place.write("copy.png", (place.root / "04.png").read_bytes())
    assert place.extract().computed == 10
    store = place.check()
    assert len(store.image_ids) == 11
    assert np.array_equal(*store.read(["04.png", "copy.png"]))


def spoil(place: Place) -> dict[str, str]:
    """Spoil photos at the start, in the middle and at the end; return the reasons."""
    whole = (place.root / "04.png").read_bytes()
    place.write("00.png", b"")
    place.write("04.png", whole[: len(whole) // 2])
    place.write("09.png", b"<html>")
    place.write("large.png", encoded(make_photo(200, 200), "PNG"))
    (place.root / "lost.png").symlink_to("nowhere.png")
    (place.folder / "outside.png").write_bytes(encoded(make_photo(), "PNG"))
    (place.root / "out.png").symlink_to(place.folder / "outside.png")
    (place.root / "folder.png").mkdir()
    return {
        "00.png": "empty file",
        "04.png": "damaged image: image file is truncated",
        "09.png": "not a JPEG, PNG or WebP image",
        "folder.png": "not a file",
        "large.png": "200 x 200 pixels, more than max_pixels 10000",
        "lost.png": "cannot be read: No such file or directory",
        "out.png": "a link to a file outside the photo folder",
    }


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


def test_a_mended_photo_comes_back(place: Place) -> None:
    good = (place.root / "04.png").read_bytes()
    place.write("04.png", good[:-30])
    assert list(place.extract().failed) == ["04.png"]
    place.write("04.png", good)
    result = place.extract()
    assert (result.failed, result.computed) == ({}, 1)
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
    assert result.computed == 0
    place.check()


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
        place.extract(breaks_before)
    assert not place.store.exists()
    done = (breaks_before - 1) * BATCH
    assert place.extract().computed == 10 - done
    assert place.seen() == 10
    whole = Place(tmp_path / "whole")
    whole.folder.mkdir()
    whole.draw(*range(10))
    whole.extract()
    assert place.store.read_bytes() == whole.store.read_bytes()


def test_a_damaged_shard_is_computed_again(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.extract()
    before = place.store.read_bytes()
    shard = min(place.cache.rglob("*.npz"))
    shard.write_bytes(shard.read_bytes()[:-40])
    assert 0 < place.extract().computed <= BATCH
    assert f"{shard} is damaged" in capsys.readouterr().out
    assert place.store.read_bytes() == before


def test_another_encoding_has_its_own_vectors_and_going_back_is_free(place: Place) -> None:
    place.extract()
    before = place.store.read_bytes()
    other = replace(ENCODING, dtype="float16")
    assert place.extract(encoding=other).computed == 10
    assert place.check().features.dtype == np.float16
    assert place.extract().computed == 0
    assert place.store.read_bytes() == before


def test_a_second_writer_is_told_to_wait(place: Place) -> None:
    place.extract()
    (folder,) = (place.cache / "features").iterdir()
    with FileLock(folder / "lock"):
        with pytest.raises(InputError, match=r"another extraction is writing to .*: wait"):
            place.extract()
        assert place.extract(encoding=replace(ENCODING, dtype="float16")).computed == 10
    assert place.extract().computed == 0


def test_the_lock_is_given_back_after_a_failure(place: Place) -> None:
    with pytest.raises(KeyboardInterrupt):
        place.extract(1)
    place.extract()


def test_a_photo_that_changes_while_it_is_read_fails(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path, folder: Path | None = None) -> bytes:
        data = photos.read_photo(path, folder)
        # Digests are taken inside the folder, pixels afterwards.
        return data if folder or path.name != "04.png" else data + b"more"

    monkeypatch.setattr(extraction, "read_photo", read)
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

    monkeypatch.setattr(extraction, "read_photo", read)
    assert list(place.extract().failed) == ["04.png"]


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_the_number_of_workers_changes_nothing(place: Place, tmp_path: Path, workers: int) -> None:
    spoil(place)
    place.extract(workers=workers)
    first = place.store.read_bytes()
    place.extract(workers=2, cache=tmp_path / "other")
    assert place.store.read_bytes() == first


@pytest.mark.parametrize(
    ("value", "dtype"), [(1e6, "float16"), (np.nan, "float16"), (np.inf, "float32")]
)
def test_vectors_that_cannot_be_stored_are_told(
    place: Place, monkeypatch: pytest.MonkeyPatch, value: float, dtype: str
) -> None:
    def run(_: Colours, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.full((len(batch), 3), value, np.float32)

    monkeypatch.setattr(Colours, "_run", run)
    with pytest.raises(InputError, match=rf"MobileNet gives numbers that {dtype} cannot hold: set"):
        place.extract(encoding=replace(ENCODING, dtype=dtype))
    assert not place.store.exists()


@pytest.mark.parametrize(("pooling", "shape"), [("average", (1024,)), ("grid", (1, 1024))])
def test_a_real_encoder_gives_the_same_bytes_after_an_interruption(
    place: Place, tiny_encoder: Path, pooling: str, shape: tuple[int, ...]
) -> None:
    network = load_encoder(tiny_encoder, pooling)
    encoding = replace(ENCODING, pooling=pooling, dtype="float16")

    class Breaks(KerasEngine):
        def encode(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
            if self.passes:
                raise KeyboardInterrupt
            return super().encode(batch)

    def run(kind: Callable[[Any, str, int], Engine], cache: str) -> Extraction:
        def make_engine() -> Engine:
            return kind(network, "MobileNet", BATCH)

        return place.extract(encoding=encoding, make_engine=make_engine, cache=place.folder / cache)

    run(KerasEngine, "whole")
    whole = place.store.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        run(Breaks, "parts")
    assert run(KerasEngine, "parts").computed == 10 - BATCH
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
