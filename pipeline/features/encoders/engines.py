"""Inference engines: run the encoder on batches of photos."""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.features.feature_spec import FeatureSpec
from pipeline.files import fingerprint
from pipeline.storage import openvino_graphs
from pipeline.storage.openvino_graphs import GraphFile

Pixels = npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.float32]

# Devices that drivers of accelerators create: NVIDIA, NVIDIA in WSL, AMD, TPU. Without any of
# them there is no accelerator, and the import of Keras, which takes seconds, can be skipped.
_DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd", "/dev/accel0")

# Largest allowed error of mixed precision, relative to the largest number: the error of rounding
# to float16, which has a precision of 11 bits.
_MIXED_PRECISION_TOLERANCE = 2.0**-11


@dataclass(frozen=True)
class PendingBatch:
    """A batch that is being encoded."""

    _chunks: list[Future[Vectors]]
    _image_count: int

    def result(self) -> Vectors:
        """Wait for the vectors: (B, D) or, with several positions per photo, (B, P, D)."""
        return np.concatenate([chunk.result() for chunk in self._chunks])[: self._image_count]

    def cancel(self) -> None:
        """Skip the chunks that have not started; `result` must not be called then."""
        for chunk in self._chunks:
            chunk.cancel()


class Engine(ABC):
    """An encoder that is ready to run, in threads of its own.

    Short passes are padded, so that all have the same shape: the last bits of a convolution's
    output depend on the batch size.

    Attributes:
        batch_size: maximum number of images per pass; each view of a photo is one.
        shape: shape of one view's vectors: (D,) or (P, D).
        accelerated: whether it runs on an accelerator, not on the cores that decode photos.
        passes: number of passes started so far.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        batch_size: int,
        chunk_size: int,
        threads: int,
        *,
        accelerated: bool = False,
    ) -> None:
        """Split passes into chunks of `chunk_size` images, `threads` of which run at a time."""
        self.batch_size = batch_size
        self.shape = shape
        self.accelerated = accelerated
        self.passes = 0
        self._chunk_size = chunk_size
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="engine")
        self._busy = _BusyTimer()

    def start(self, images: Pixels) -> PendingBatch:
        """Start to encode at most `batch_size` images, (B, S, S, 3) RGB."""
        if len(images) > self.batch_size:
            raise ValueError(f"{len(images)} images in a batch of {self.batch_size}")
        self.passes += 1
        futures = []
        for first in range(0, len(images), self._chunk_size):
            chunk = images[first : first + self._chunk_size]
            padding = [(0, self._chunk_size - len(chunk)), *[(0, 0)] * (images.ndim - 1)]
            self._busy.start()
            future = self._pool.submit(self._infer, np.pad(chunk, padding))
            future.add_done_callback(self._busy.stop)
            futures.append(future)
        return PendingBatch(futures, len(images))

    def encode(self, images: Pixels) -> Vectors:
        """Encode at most `batch_size` images and wait for their vectors."""
        return self.start(images).result()

    def busy_seconds(self) -> float:
        """Return the time so far in which at least one image was being encoded."""
        return self._busy.seconds()

    @abstractmethod
    def _infer(self, images: Pixels) -> Vectors:
        """Run the network on `chunk_size` images; called from any of the threads."""


class _BusyTimer:
    """Measures the time in which at least one job is running."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._since = 0.0
        self._seconds = 0.0

    def start(self) -> None:
        """Note that a job starts."""
        with self._lock:
            if not self._running:
                self._since = time.monotonic()
            self._running += 1

    def stop(self, _: object) -> None:
        """Note that a job ends; a callback of its `Future`."""
        with self._lock:
            self._running -= 1
            if not self._running:
                self._seconds += time.monotonic() - self._since

    def seconds(self) -> float:
        with self._lock:
            return self._seconds + (time.monotonic() - self._since if self._running else 0.0)


class KerasEngine(Engine):
    """Runs the network on Keras' backend, on the device that the backend chooses."""

    def __init__(self, encoder: Any, batch_size: int, chunk_size: int | None = None) -> None:
        """Take a `keras.Model` from pixels to vectors; `chunk_size` defaults to `batch_size`."""
        from pipeline.backend import JIT_COMPILE  # noqa: PLC0415  (imports Keras)

        super().__init__(
            tuple(encoder.output_shape[1:]),
            batch_size,
            chunk_size=chunk_size or batch_size,
            threads=1,
            accelerated=_has_accelerator(),
        )
        encoder.compile(jit_compile=JIT_COMPILE)
        self._encoder = encoder

    def _infer(self, images: Pixels) -> Vectors:
        return np.asarray(self._encoder.predict_on_batch(images), np.float32)


class OpenVINOEngine(Engine):
    """Runs the network in the OpenVINO runtime: each group of cores takes chunks of a pass."""

    # Images per request. Smaller chunks lose time between requests, larger ones leave cores idle
    # at the end of a pass.
    _CHUNK_SIZE = 4

    def __init__(self, graph: Path, batch_size: int, cores: int | None = None) -> None:
        """Take a converted graph (see `openvino_graphs`) from pixels to vectors.

        Args:
            graph: the graph's file.
            batch_size: see `Engine`.
            cores: number of cores to use; None uses all.
        """
        single = batch_size == 1
        chunk_size = 1 if single else self._CHUNK_SIZE
        properties = openvino_graphs.LATENCY if single else openvino_graphs.THROUGHPUT
        if cores is not None:
            properties = {**properties, "INFERENCE_NUM_THREADS": str(cores)}
        compiled = openvino_graphs.compile_graph(graph, properties, batch_size=chunk_size)
        streams = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        shape = tuple(compiled.output(0).shape)[1:]
        # OpenVINO's bindings initialize themselves when they first return an array; two threads
        # that do so at the same time deadlock.
        np.copy(compiled.create_infer_request().input_tensors[0].data)
        super().__init__(shape, batch_size, chunk_size, threads=1 if single else streams)
        self._local = threading.local()
        self._compiled = compiled

    def _infer(self, images: Pixels) -> Vectors:
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        vectors: Vectors = self._local.request.infer(images)[0].copy()
        return vectors


def load_engine(
    kind: str, artifacts: Path, feature_spec: FeatureSpec, batch_size: int, cores: int | None = None
) -> Engine:
    """Return an engine for the encoder in the folder `artifacts`.

    Args:
        kind: "keras", "openvino" or "auto": OpenVINO on a CPU if it is installed, unless
            KERAS_BACKEND selects another backend than TensorFlow.
        artifacts: the folder of encoder.json and encoder.weights.h5; the converted OpenVINO
            graph is stored there too.
        feature_spec: which vectors to compute.
        batch_size: photos per pass, each with all its views.
        cores: number of cores for OpenVINO; None uses all. Keras' backends read theirs from
            environment variables.

    Raises:
        InputError: OpenVINO is required but not available, or a file is absent or damaged.
    """
    if kind == "openvino" and not openvino_graphs.is_installed():
        raise InputError(
            "params.yaml: runtime.engine is openvino, which is not installed: "
            "`pip install -e '.[openvino]'`, or set it to auto"
        )
    if kind == "openvino" and not openvino_graphs.can_convert():
        raise InputError(
            "params.yaml: runtime.engine is openvino, whose graphs are converted with TensorFlow: "
            "unset KERAS_BACKEND, or set it to auto"
        )

    def build() -> Any:
        return _build_network(artifacts, feature_spec)

    images = batch_size * feature_spec.view_count
    if kind == "openvino" or (kind == "auto" and _openvino_is_best()):
        graph = _graph_file(artifacts, feature_spec)
        with (
            suppress(openvino_graphs.NoRoomError),
            openvino_graphs.converted_graph(graph, build) as path,
        ):
            return OpenVINOEngine(path, images, cores)
    network = build()
    if _has_accelerator() and feature_spec.dtype == "float16":
        network = _mixed_precision_if_accurate(network, build)
    # A chunk has as many images as a pass has photos: with more it would need more memory.
    return KerasEngine(network, images, chunk_size=batch_size)


def _graph_file(artifacts: Path, feature_spec: FeatureSpec) -> GraphFile:
    # The fingerprint is about the code that wrote encoder.json; the present code may differ.
    code = openvino_graphs.code_sha256(Path(__file__).parent)
    return GraphFile(
        artifacts / openvino_graphs.FOLDER,
        "encoder",
        fingerprint([feature_spec.fingerprint, code]),
        artifacts / "encoder.weights.h5",
    )


def _openvino_is_best() -> bool:
    usable = openvino_graphs.can_convert() and openvino_graphs.is_installed()
    return usable and not _has_accelerator()


def _mixed_precision_if_accurate(network: Any, build: Callable[[], Any]) -> Any:
    """Return the network in mixed precision if the error is below that of storing float16.

    Micikevicius et al. (2018), "Mixed precision training": weights and sums in float32.

    Args:
        network: from pixels to vectors.
        build: builds the network again.
    """
    from pipeline.backend import keras  # noqa: PLC0415  (seconds)

    original_policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        mixed = build()
    finally:
        keras.config.set_dtype_policy(original_policy)
    pixels = np.stack([_photo_like(network.input_shape[1], seed) for seed in range(8)])
    exact, rounded = (np.asarray(n.predict_on_batch(pixels), np.float32) for n in (network, mixed))
    error = float(np.abs(exact - rounded).max() / np.abs(exact).max())
    accurate = error <= _MIXED_PRECISION_TOLERANCE
    print(f"mixed precision {'used' if accurate else 'not used'}: error {error:.1e} of float32")
    return mixed if accurate else network


def _photo_like(side: int, seed: int) -> Pixels:
    """Draw patches of all sizes with equal contrasts, a spectrum like that of photos, (S, S, 3).

    On independent pixels, mixed precision has half the error that it has on photos (Xception,
    root mean square: 0.10 % of the vectors, instead of 0.17 % on photos and on these).
    """
    random = np.random.default_rng(seed)
    brightness = np.zeros((side, side, 3))
    for power in range(1, side.bit_length()):
        cells = np.arange(side) * 2**power // side
        patches = random.normal(size=(2**power, 2**power, 3)) + random.normal(size=(1, 1, 3))
        brightness += patches[cells][:, cells]
    darkest, brightest = np.percentile(brightness, [5, 95])  # beyond them, it is saturated
    pixels = (brightness - darkest) / (brightest - darkest) * 255
    return np.asarray(pixels.clip(0, 255), np.uint8)


def _build_network(artifacts: Path, feature_spec: FeatureSpec) -> Any:
    """Build the network from pixels to vectors."""
    # Both import Keras, which takes seconds; an engine with a converted graph needs neither.
    from pipeline.features.encoders.networks import with_preprocessing  # noqa: PLC0415
    from pipeline.features.encoders.pretrained import load_encoder  # noqa: PLC0415

    network = load_encoder(artifacts, feature_spec.pooling, feature_spec.scales)
    return with_preprocessing(network, feature_spec.encoder)


def _has_accelerator() -> bool:
    if not any(Path(driver).exists() for driver in _DRIVERS):
        return False
    from pipeline.backend import has_accelerator  # noqa: PLC0415  (seconds)

    return has_accelerator()
