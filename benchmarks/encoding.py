"""Encoded photos per second, decoding and storing included: notebook, Keras, default engine.

All three use the notebook's 299 x 299 pixels, whatever `encoder.input_size` is.
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
from benchmarks.harness import MeasuringProcess, Row, measure_interleaved, median_ratio
from benchmarks.photos import draw_photos
from pipeline.features.encoders.engines import load_engine
from pipeline.features.executors.local import LocalExecutor
from pipeline.features.extractor import Extractor
from pipeline.features.feature_spec import FeatureSpec, read_encoder_config
from pipeline.files import write_json

_INPUT_SIZE = 299
_GFLOP = 16.8  # of one Xception forward pass at that size: 8.4 G multiply-adds
_MATRIX_SIZE = 4096
_NOTEBOOK_PHOTOS, _PHOTOS = 12, 96  # per round

MeasureRate = Callable[[Sequence[Path]], tuple[float, float]]


def run(artifacts: Path) -> list[Row]:
    """Compare the three ways, and the default with the peak of the machine's matrix product."""
    waits: list[float] = []
    values = _measure(artifacts, waits)
    peaks, notebook_rates, keras_rates, rates = values.values()
    share = statistics.median(_GFLOP * rate / p for rate, p in zip(rates, peaks, strict=True))
    median = statistics.median
    return [
        Row("matrix product, float32", f"{median(peaks):.0f} GFLOP/s"),
        Row("encoding, the notebook's way", f"{median(notebook_rates):.1f} photos/s"),
        Row(
            "encoding, Keras in batches",
            f"{median(keras_rates):.1f} photos/s, "
            f"x {median_ratio(keras_rates, notebook_rates):.2f} the notebook's rate",
        ),
        Row(
            "encoding, the default engine",
            f"{median(rates):.1f} photos/s, "
            f"x {median_ratio(rates, notebook_rates):.2f} the notebook's rate",
            "x 2.5",
        ),
        Row("share of the matrix product's peak", f"{share:.0%}", "75%"),
        Row("share of the time spent waiting for photos", f"{median(waits):.1%}", "none"),
    ]


def _measure(artifacts: Path, waits: list[float]) -> dict[str, list[float]]:
    """Measure each way in a process of its own.

    Args:
        artifacts: with the encoder.
        waits: gets the share of time that the default engine waited for photos, once per round.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        photos = draw_photos(Path(folder) / "photos", _PHOTOS)
        artifacts = _copy_encoder(artifacts, Path(folder) / "artifacts")
        notebook_way = stack.enter_context(MeasuringProcess(_make_notebook, artifacts))
        keras_engine = stack.enter_context(MeasuringProcess(_make_extractor, artifacts, "keras"))
        default = stack.enter_context(MeasuringProcess(_make_extractor, artifacts, "auto"))
        peak = stack.enter_context(MeasuringProcess(make_matrix_product))
        for process in (notebook_way, keras_engine, default):
            process.run(photos[:_NOTEBOOK_PHOTOS])  # the first pass builds the graphs

        def measure_default() -> float:
            rate, wait = default.run(photos)
            waits.append(wait)
            return float(rate)

        return measure_interleaved(
            {
                "peak, GFLOP/s": lambda: float(peak.run()),
                "notebook, photos/s": lambda: float(notebook_way.run(photos[:_NOTEBOOK_PHOTOS])[0]),
                "keras, photos/s": lambda: float(keras_engine.run(photos)[0]),
                "default, photos/s": measure_default,
            }
        )


def _copy_encoder(artifacts: Path, folder: Path) -> Path:
    """Copy the encoder, changed to the notebook's input size; return the folder."""
    # The weights of a network without its classifier fit every input size.
    folder.mkdir()
    encoder = replace(read_encoder_config(artifacts / "encoder.json"), input_size=_INPUT_SIZE)
    write_json(folder / "encoder.json", asdict(encoder))
    shutil.copyfile(artifacts / "encoder.weights.h5", folder / "encoder.weights.h5")
    return folder


def make_matrix_product() -> Callable[[], float]:
    """Return a function that measures the GFLOP/s of a large matrix product."""
    # The backend's matrix product: NumPy's reaches half the peak of some processors.
    from pipeline.backend import keras  # noqa: PLC0415  (in a process of its own)

    random = np.random.default_rng(0)
    a, b = (
        keras.ops.convert_to_tensor(random.random((_MATRIX_SIZE, _MATRIX_SIZE), dtype=np.float32))
        for _ in range(2)
    )

    def measure_gflops() -> float:
        best = np.inf
        for _ in range(5):
            start = time.perf_counter()
            np.asarray(keras.ops.matmul(a, b)[0, 0])  # waits until the whole product is computed
            best = min(best, time.perf_counter() - start)
        return 2 * _MATRIX_SIZE**3 / best / 1e9

    measure_gflops()
    return measure_gflops


def _feature_spec(artifacts: Path) -> FeatureSpec:
    return read_encoder_config(artifacts / "encoder.json").feature_spec(
        "whole", "average", 1, "float16"
    )


def _make_notebook(artifacts: Path) -> MeasureRate:
    encoder = notebook.build_notebook_encoder(artifacts, _feature_spec(artifacts))

    def measure_rate(photos: Sequence[Path]) -> tuple[float, float]:
        start = time.perf_counter()
        for photo in photos:
            notebook.encode_photo(encoder, photo)
        return len(photos) / (time.perf_counter() - start), 0.0

    return measure_rate


def _make_extractor(artifacts: Path, engine_name: str) -> MeasureRate:
    feature_spec = _feature_spec(artifacts)
    engine = load_engine(engine_name, artifacts, feature_spec, batch_size=32)

    def measure_rate(photos: Sequence[Path]) -> tuple[float, float]:
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
            seconds = time.perf_counter() - start
        return len(photos) / seconds, result.stats.idle_seconds / result.stats.seconds

    return measure_rate
