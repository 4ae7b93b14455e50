"""A workspace for extraction tests: photos, a cheap encoder, and what is extracted with it."""

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.features.decoding.photos import PhotoFile, decode_photo
from pipeline.features.encoders.engines import Engine, PendingBatch, Pixels, Vectors
from pipeline.features.executors.local import EncodeStats, LocalExecutor
from pipeline.features.extractor import ExtractionResult, Extractor
from pipeline.features.feature_spec import FeatureSpec
from pipeline.features.shard_cache import ShardCache
from pipeline.features.store import FeatureStore
from pipeline.files import sha256_file
from tests.conftest import FEATURE_SPEC, encoded, make_photo

BATCH = 4
MAX_PIXELS = 10_000


class MeanColourEngine(Engine):
    """Encodes an image as its mean colour; can be interrupted before a pass."""

    def __init__(
        self,
        interrupt_before: int | None = None,
        *,
        accelerated: bool = False,
        batch_size: int = BATCH,
    ) -> None:
        super().__init__((3,), batch_size, chunk_size=BATCH, threads=1, accelerated=accelerated)
        self._interrupt_before = interrupt_before
        self._runs = 0

    def _infer(self, images: Pixels) -> Vectors:
        self._runs += 1
        if self._runs == self._interrupt_before:
            raise KeyboardInterrupt
        vectors: Vectors = images.mean(axis=(1, 2), dtype=np.float32)
        return vectors


class PausedEngine(MeanColourEngine):
    """Runs a chunk for each release of `permits`; records the sizes of started passes."""

    def __init__(self) -> None:
        super().__init__()
        self.permits = threading.Semaphore(0)
        self.started: list[int] = []

    def start(self, images: Pixels) -> PendingBatch:
        self.started.append(len(images))
        return super().start(images)

    def _infer(self, images: Pixels) -> Vectors:
        self.permits.acquire()
        return super()._infer(images)


@dataclass
class Workspace:
    """A folder of photos, a shard cache and a feature store."""

    folder: Path
    engines: list[Engine] = field(default_factory=list)

    @staticmethod
    def drawn(folder: Path, count: int) -> "Workspace":
        """Create a workspace with `count` photos, 00.png, 01.png, ..."""
        folder.mkdir(exist_ok=True)
        workspace = Workspace(folder)
        workspace.draw(*range(count))
        return workspace

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

    def shards(self, feature_spec: FeatureSpec = FEATURE_SPEC) -> ShardCache:
        return ShardCache(self.cache, feature_spec.fingerprint)

    def executor(self, engine: Engine | None = None, workers: int = 2) -> LocalExecutor:
        """Return an executor that records each engine that it makes in `engines`."""

        def make_engine() -> Engine:
            self.engines.append(engine or MeanColourEngine())
            return self.engines[-1]

        return LocalExecutor(make_engine, workers, 3600)

    def extractor(
        self, engine: Engine | None = None, workers: int = 2, **changes: Any
    ) -> Extractor:
        values: dict[str, Any] = {
            "feature_spec": FEATURE_SPEC,
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
        """Encode all photos into the shard cache, as an `Extractor` does."""
        photos = {sha256_file(path): PhotoFile(path) for path in self.photos().values()}
        return executor.encode(photos, FEATURE_SPEC, MAX_PIXELS, self.shards(), "0 cached")

    def cached_count(self) -> int:
        """Count the photos whose vectors are in the shard cache."""
        return len(self.shards().index())

    def check(self) -> FeatureStore:
        """Check every row of the store against its photo; return the store."""
        store = FeatureStore.open(self.store)
        store.verify()
        for image_id, vector in zip(store.image_ids, store.features, strict=True):
            data = (self.root / image_id).read_bytes()
            views = decode_photo(data, 32, MAX_PIXELS, store.feature_spec.views)
            expected = views.mean(axis=(1, 2))
            assert np.allclose(vector, expected if len(views) > 1 else expected[0], rtol=1e-3)
        assert sorted([*store.image_ids, *store.failed]) == sorted(self.photos())
        return store


def add_bad_photos(workspace: Workspace) -> dict[str, str]:
    """Damage the first, a middle and the last photo, and add bad files; return the reasons."""
    good = (workspace.root / "04.png").read_bytes()
    workspace.write("00.png", b"")
    workspace.write("04.png", good[: len(good) // 2])
    workspace.write("09.png", b"<html>")
    workspace.write("large.png", encoded(make_photo(200, 200), "PNG"))
    (workspace.root / "lost.png").symlink_to("nowhere.png")
    (workspace.folder / "outside.png").write_bytes(encoded(make_photo(), "PNG"))
    (workspace.root / "out.png").symlink_to(workspace.folder / "outside.png")
    (workspace.root / "folder.png").mkdir()
    return {
        "00.png": "empty file",
        "04.png": "damaged image: image file is truncated",
        "09.png": "a web page: download the photo itself",
        "folder.png": "not a file",
        "large.png": "200 x 200 pixels, more than max_pixels 10000",
        "lost.png": "cannot be read: No such file or directory",
        "out.png": "a link to a file outside the photo folder",
    }
