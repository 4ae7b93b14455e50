"""Feature stores of random vectors, for benchmarks in which only time and memory count."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.features.feature_spec import FeatureSpec
from pipeline.features.store import write_store

NOISE_SPEC = FeatureSpec(
    encoder="Noise",
    input_size=299,
    weights_sha256="0",
    preprocessing="none",
    preprocessing_sha256="0",
    graph_sha256="0",
    decoding="drawn",
    decoding_sha256="0",
    views="whole",
    pooling="average",
    scales=1,
    dtype="float16",
)
_CHUNK = 100  # photos written at a time


def write_noise(folder: Path, count: int, shape: tuple[int, ...]) -> None:
    """Write features.h5 and features.npy with the same vectors of `count` photos."""
    photos = {f"{number:05}.jpg": f"{number:064x}" for number in range(count)}
    random = np.random.default_rng(0)
    array = np.lib.format.open_memmap(folder / "features.npy", "w+", np.float16, (count, *shape))

    def chunks() -> Iterator[tuple[list[int], npt.NDArray[np.float16]]]:
        for start in range(0, count, _CHUNK):
            chunk = random.random((_CHUNK, *shape), dtype=np.float32).astype(np.float16)
            array[start : start + _CHUNK] = chunk
            yield list(range(start, start + _CHUNK)), chunk

    write_store(folder / "features.h5", NOISE_SPEC, photos, {}, chunks())
    array.flush()


def write_vectors(path: Path, features: npt.NDArray[Any]) -> list[str]:
    """Write a feature store; return its photos' names."""
    names = [f"{number:04}.jpg" for number in range(len(features))]
    digests = {name: f"{number:064x}" for number, name in enumerate(names)}
    write_store(path, NOISE_SPEC, digests, {}, [(list(range(len(names))), features)])
    return names
