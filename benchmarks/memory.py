"""Peak memory of an extraction at 500 and at 8,000 photos, pooled and as a grid."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Row, Worker
from benchmarks.photos import repeat_photo
from benchmarks.usage import peak_memory
from pipeline.features.encoders.engines import Engine, Pixels, Vectors
from pipeline.features.executors.local import LocalExecutor
from pipeline.features.extractor import Extractor
from pipeline.features.feature_spec import FeatureSpec

_FEW, _MANY = 500, 8_000
_SHAPES = {"average": (2048,), "grid": (100, 2048)}


class Noise(Engine):
    """Gives vectors without a network, whose memory would hide what the photos take."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape, 32, chunk_size=32, threads=1)
        self._vectors = np.random.default_rng(0).random((32, *shape), dtype=np.float32)

    def _infer(self, images: Pixels) -> Vectors:
        return self._vectors[: len(images)]


def rows(_: Path) -> list[Row]:
    """Extract drawn photos, each run in a process of its own."""
    found = []
    for pooling, shape in _SHAPES.items():
        peaks = []
        for count in (_FEW, _MANY):
            with tempfile.TemporaryDirectory() as folder:
                repeat_photo(Path(folder) / "photos", count)
                with Worker(_make, folder, shape) as worker:
                    peaks.append(worker.run())
            print(f"  {pooling}, {count} photos: {peaks[-1] / 2**20:.0f} MiB", flush=True)
        few, many = peaks
        found.append(
            Row(
                f"peak memory of extract, {' x '.join(map(str, shape))} a photo",
                f"{few / 2**20:.0f} MiB at {_FEW} photos, {many / 2**20:.0f} MiB at {_MANY}: "
                f"x {many / few:.2f}",
                "x 1.10",
            )
        )
    return found


def _make(folder: str, shape: tuple[int, ...]) -> Any:
    place = Path(folder)

    def run() -> int:
        photos = {path.name: path for path in sorted((place / "photos").iterdir())}
        Extractor(
            feature_spec=FeatureSpec(
                "Noise", 299, "0", "none", "0", "drawn", "whole", "average", 1, "float16"
            ),
            executor=LocalExecutor(lambda: Noise(shape), None, 3600.0),
            cache=place / "cache",
            max_pixels=100_000_000,
            max_failed_share=0.0,
        ).extract(photos, place / "photos", place / "features.h5")
        return peak_memory()

    return run
