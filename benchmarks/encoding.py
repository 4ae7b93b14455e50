"""Photos a second, decoding and storing included: the notebook's way, Keras, the default.

All of them at the notebook's 299 x 299, whatever `encoder.input_size` is.
"""

import contextlib
import io
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from benchmarks import notebook
from benchmarks.harness import Row, Worker, interleaved, ratio
from benchmarks.photos import write_photos
from pipeline.features.encoders.engines import load_engine
from pipeline.features.executors.local import LocalExecutor
from pipeline.features.extractor import Extractor
from pipeline.features.feature_spec import FeatureSpec, read_encoder_config
from pipeline.files import write_json

_SIZE = 299
_GFLOP = 16.8  # one Xception at that size: 8.4 G multiply-adds
_SIDE = 4096  # of the matrices
_ALONE, _TOGETHER = 12, 96  # photos a round

Rate = Callable[[Sequence[Path]], tuple[float, float]]


def rows(artifacts: Path) -> list[Row]:
    """Compare the three ways, and each with the peak of the machine's matrix product."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        photos = write_photos(Path(folder) / "photos", _TOGETHER)
        artifacts = _at_the_notebooks_size(artifacts, Path(folder) / "artifacts")
        one = stack.enter_context(Worker(_notebook, artifacts))
        plain = stack.enter_context(Worker(_project, artifacts, "keras"))
        default = stack.enter_context(Worker(_project, artifacts, "auto"))
        peak = stack.enter_context(Worker(_peak))
        for worker in (one, plain, default):
            worker.run(photos[:_ALONE])  # the first pass builds what later ones use
        waits: list[float] = []

        def by_default() -> float:
            rate, waiting = default.run(photos)
            waits.append(waiting)
            return float(rate)

        found = interleaved(
            {
                "peak, GFLOP/s": lambda: float(peak.run()),
                "notebook, photos/s": lambda: float(one.run(photos[:_ALONE])[0]),
                "keras, photos/s": lambda: float(plain.run(photos)[0]),
                "default, photos/s": by_default,
            }
        )
    peaks, alone, batches, ours = found.values()
    share = statistics.median(_GFLOP * o / p for o, p in zip(ours, peaks, strict=True))
    median = statistics.median
    return [
        Row("matrix product, float32", f"{median(peaks):.0f} GFLOP/s"),
        Row("encoding, the notebook's way", f"{median(alone):.1f} photos/s"),
        Row(
            "encoding, Keras in batches",
            f"{median(batches):.1f} photos/s, x {ratio(batches, alone):.2f} of the notebook's",
        ),
        Row(
            "encoding, the default engine",
            f"{median(ours):.1f} photos/s, x {ratio(ours, alone):.2f} of the notebook's",
            "x 2.5",
        ),
        Row("share of the matrix product's peak", f"{share:.0%}", "75%"),
        Row("share of the time in which it waited", f"{median(waits):.1%}", "none"),
    ]


def _at_the_notebooks_size(artifacts: Path, folder: Path) -> Path:
    # The weights of a network without its classifier fit every size.
    folder.mkdir()
    encoder = replace(read_encoder_config(artifacts / "encoder.json"), input_size=_SIZE)
    write_json(folder / "encoder.json", asdict(encoder))
    shutil.copyfile(artifacts / "encoder.weights.h5", folder / "encoder.weights.h5")
    return folder


def _peak() -> Callable[[], float]:
    # By the backend's matrix product: NumPy's stays at half of what some processors can.
    from pipeline.backend import keras  # noqa: PLC0415  (in a process of its own)

    random = np.random.default_rng(0)
    a, b = (
        keras.ops.convert_to_tensor(random.random((_SIDE, _SIDE), dtype=np.float32))
        for _ in range(2)
    )

    def run() -> float:
        best = np.inf
        for _ in range(5):
            start = time.perf_counter()
            np.asarray(keras.ops.matmul(a, b)[0, 0])  # waits for all of it
            best = min(best, time.perf_counter() - start)
        return 2 * _SIDE**3 / best / 1e9

    run()
    return run


def _feature_spec(artifacts: Path) -> FeatureSpec:
    return read_encoder_config(artifacts / "encoder.json").feature_spec(
        "whole", "average", 1, "float16"
    )


def _notebook(artifacts: Path) -> Rate:
    encoder = notebook.load_encoder(artifacts, _feature_spec(artifacts))

    def run(photos: Sequence[Path]) -> tuple[float, float]:
        start = time.perf_counter()
        for photo in photos:
            notebook.encode(encoder, photo)
        return len(photos) / (time.perf_counter() - start), 0.0

    return run


def _project(artifacts: Path, kind: str) -> Rate:
    feature_spec = _feature_spec(artifacts)
    engine = load_engine(kind, artifacts, feature_spec, batch_size=32)

    def run(photos: Sequence[Path]) -> tuple[float, float]:
        with (
            tempfile.TemporaryDirectory() as folder,
            contextlib.redirect_stderr(io.StringIO()),
        ):
            extractor = Extractor(
                feature_spec=feature_spec,
                executor=LocalExecutor(lambda: engine, None, 3600.0),
                cache=Path(folder),
                max_pixels=100_000_000,
                max_failed_share=0.0,
            )
            start = time.perf_counter()
            result = extractor.extract(
                {photo.name: photo for photo in photos},
                photos[0].parent,
                Path(folder) / "features.h5",
            )
            taken = time.perf_counter() - start
        return len(photos) / taken, result.stats.idle_seconds / result.stats.seconds

    return run
