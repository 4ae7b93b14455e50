"""A folder of photos, an encoder that costs nothing, and what is extracted with it."""

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.features import photos
from pipeline.features.encoders.engines import Engine, PendingBatch, Pixels, Vectors
from pipeline.features.executors.local import EncodeStats, LocalExecutor
from pipeline.features.extractor import ExtractionResult, Extractor
from pipeline.features.feature_spec import FeatureSpec
from pipeline.features.shard_cache import ShardFolder
from pipeline.features.store import FeatureStore
from pipeline.files import sha256_file
from tests.conftest import ENCODING, encoded, make_photo

BATCH = 4
MAX_PIXELS = 10_000


class Colours(Engine):
    """Encodes a photo as its mean colours; can break down before a pass."""

    def __init__(
        self,
        breaks_before: int | None = None,
        *,
        accelerated: bool = False,
        batch_size: int = BATCH,
    ) -> None:
        super().__init__((3,), batch_size, part=BATCH, threads=1, accelerated=accelerated)
        self._breaks_before = breaks_before
        self._run = 0

    def _infer(self, part: Pixels) -> Vectors:
        self._run += 1
        if self._run == self._breaks_before:
            raise KeyboardInterrupt
        vectors: Vectors = part.mean(axis=(1, 2), dtype=np.float32)
        return vectors


class Held(Colours):
    """Goes on when it is told to; notes what was begun."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Semaphore(0)
        self.begun: list[int] = []

    def start(self, photos: Pixels) -> PendingBatch:
        self.begun.append(len(photos))
        return super().start(photos)

    def _infer(self, part: Pixels) -> Vectors:
        self.go.acquire()
        return super()._infer(part)


@dataclass
class Place:
    """A folder of photos, a cache and a store."""

    folder: Path
    engines: list[Engine] = field(default_factory=list)

    @staticmethod
    def drawn(folder: Path, count: int) -> "Place":
        """Make a place of so many photos, 00.png and on."""
        folder.mkdir(exist_ok=True)
        place = Place(folder)
        place.draw(*range(count))
        return place

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

    def shards(self, encoding: FeatureSpec = ENCODING) -> ShardFolder:
        return ShardFolder(self.cache, encoding.fingerprint)

    def executor(self, engine: Engine | None = None, workers: int = 2) -> LocalExecutor:
        """Return an executor that notes each engine that it makes."""

        def make_engine() -> Engine:
            self.engines.append(engine or Colours())
            return self.engines[-1]

        return LocalExecutor(make_engine, workers, 3600)

    def extractor(
        self, engine: Engine | None = None, workers: int = 2, **changes: Any
    ) -> Extractor:
        values: dict[str, Any] = {
            "encoding": ENCODING,
            "executor": self.executor(engine, workers),
            "cache": self.cache,
            "max_pixels": MAX_PIXELS,
            "max_failed_share": 0.5,
        }
        return Extractor(**(values | changes))

    def extract(
        self, engine: Engine | None = None, workers: int = 2, **changes: Any
    ) -> ExtractionResult:
        extractor = self.extractor(engine, workers, **changes)
        return extractor.extract(self.photos(), self.root, self.store)

    def encode(self, executor: LocalExecutor) -> EncodeStats:
        """Encode all photos into shards, as an `Extractor` does."""
        photos = {sha256_file(path): path for path in self.photos().values()}
        return executor.encode(photos, ENCODING, MAX_PIXELS, self.shards(), "0 cached")

    def kept(self) -> int:
        """Count the photos whose vectors are kept."""
        return len(self.shards().index())

    def check(self) -> FeatureStore:
        """Check every row of the store against its photo; return the store."""
        store = FeatureStore.open(self.store)
        store.verify()
        for image_id, vector in zip(store.image_ids, store.features, strict=True):
            data = (self.root / image_id).read_bytes()
            views = photos.decode(data, 32, MAX_PIXELS, store.encoding.views)
            expected = views.mean(axis=(1, 2))
            assert np.allclose(vector, expected if len(views) > 1 else expected[0], rtol=1e-3)
        assert sorted([*store.image_ids, *store.failed]) == sorted(self.photos())
        return store


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
