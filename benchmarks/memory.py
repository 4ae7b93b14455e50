"""Peak memory of an extraction of 500 and of 8,000 photos, with pooled and with grid features."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.harness import MeasuringProcess, Row
from benchmarks.noise import NOISE_SPEC
from benchmarks.photos import write_copies
from benchmarks.usage import peak_memory
from pipeline.features.encoders.engines import Engine, Pixels, Vectors
from pipeline.features.executors.local import LocalExecutor
from pipeline.features.extractor import Extractor

_FEW, _MANY = 500, 8_000
_SHAPES = {"average": (2048,), "grid": (100, 2048)}


class NoiseEngine(Engine):
    """Returns random vectors: a network's memory would hide that of the photos."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape, 32, chunk_size=32, threads=1)
        self._vectors = np.random.default_rng(0).random((32, *shape), dtype=np.float32)

    def _infer(self, images: Pixels) -> Vectors:
        return self._vectors[: len(images)]


def run(_: Path) -> list[Row]:
    """Extract drawn photos, each time in a new process."""
    rows = []
    for pooling, shape in _SHAPES.items():
        peaks = []
        for count in (_FEW, _MANY):
            with tempfile.TemporaryDirectory() as folder:
                write_copies(Path(folder) / "photos", count)
                with MeasuringProcess(_make_extraction, folder, shape) as process:
                    peaks.append(process.run())
            print(f"  {pooling}, {count} photos: {peaks[-1] / 2**20:.0f} MiB", flush=True)
        few, many = peaks
        rows.append(
            Row(
                f"peak memory of extract, {' x '.join(map(str, shape))} numbers per photo",
                f"{few / 2**20:.0f} MiB for {_FEW} photos, {many / 2**20:.0f} MiB for {_MANY}: "
                f"x {many / few:.2f}",
                "x 1.10",
            )
        )
    return rows


def _make_extraction(name: str, shape: tuple[int, ...]) -> Callable[[], int]:
    folder = Path(name)

    def measure_peak() -> int:
        photos = {path.name: path for path in sorted((folder / "photos").iterdir())}
        Extractor(
            feature_spec=NOISE_SPEC,
            executor=LocalExecutor(lambda: NoiseEngine(shape), None, 3600.0),
            cache=folder / "cache",
            max_pixels=100_000_000,
            max_failed_share=0.0,
        ).extract(photos, folder / "photos", folder / "features.h5")
        return peak_memory()

    return measure_peak
