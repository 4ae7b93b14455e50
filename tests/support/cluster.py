"""A workspace for cluster tests: photos, some of them damaged, and a cheap encoder."""

import functools
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.features.encoders.engines import Engine, Pixels, Vectors
from pipeline.features.executors.local import LocalExecutor
from pipeline.features.executors.ray import RayExecutor
from pipeline.features.extractor import Executor, ExtractionResult, Extractor
from pipeline.features.feature_spec import FeatureSpec
from tests.conftest import FEATURE_SPEC, encoded, make_photo

BATCH = 3
DAMAGED = {"03.png": b"<html>", "07.png": b"", "11.png": b"\x89PNG\r\n\x1a\n"}


class LoggingEngine(Engine):
    """Encodes an image as its mean colour; logs the process of every pass to a file.

    While a file `hold` exists next to the log, second passes wait.
    """

    def __init__(self, log: Path, scale: float = 1.0) -> None:
        super().__init__((3,), BATCH, chunk_size=BATCH, threads=1)
        self._log, self._scale = log, scale

    def _infer(self, images: Pixels) -> Vectors:
        with self._log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        while self.passes > 1 and self._log.with_name("hold").exists():
            time.sleep(0.02)
        vectors: Vectors = images.mean(axis=(1, 2), dtype=np.float32) * np.float32(self._scale)
        return vectors


def make_logging_engine(log: Path, _: int | None = None, **options: float) -> Engine:
    return LoggingEngine(log, **options)


@dataclass
class ClusterWorkspace:
    """Photos, some of them damaged, and the caches and stores extracted from them."""

    folder: Path
    address: str | None = None

    @staticmethod
    def drawn(folder: Path) -> "ClusterWorkspace":
        """Create a workspace with twenty photos."""
        workspace = ClusterWorkspace(folder)
        workspace.draw(20)
        return workspace

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
        return LocalExecutor(functools.partial(make_logging_engine, self.log), 2, 3600)

    def ray(
        self,
        make_engine: Callable[..., Engine] = make_logging_engine,
        actors: int = 2,
        progress_seconds: float = 3600.0,
        **engine_options: float,
    ) -> Executor:
        make = functools.partial(make_engine, self.log, **engine_options)
        return RayExecutor(make, BATCH, actors, self.address, progress_seconds)

    def extract(
        self,
        executor: Executor,
        cache: str,
        photos: int | None = None,
        feature_spec: FeatureSpec = FEATURE_SPEC,
    ) -> ExtractionResult:
        paths = sorted(self.root.iterdir())[:photos]
        return Extractor(
            feature_spec=feature_spec,
            executor=executor,
            cache=self.folder / cache,
            max_pixels=10_000,
            max_failed_share=0.5,
        ).extract({path.name: path for path in paths}, self.root, self.store(cache))

    def store(self, cache: str) -> Path:
        return self.folder / f"{cache}.h5"

    def passes(self) -> Counter[int]:
        """Return the number of the encoder's passes per process."""
        return Counter(map(int, self.log.read_text().split())) if self.log.exists() else Counter()

    def equals_local_store(self, cache: str) -> bool:
        """Return whether a store has the same bytes as the local executor's."""
        self.extract(self.local(), "local")
        return self.store(cache).read_bytes() == self.store("local").read_bytes()
