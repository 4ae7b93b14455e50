"""Inference engines: what runs the encoder over batches of photos."""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.features.feature_spec import FeatureSpec
from pipeline.storage import openvino_graphs
from pipeline.storage.openvino_graphs import GraphFile

Pixels = npt.NDArray[np.uint8]
Vectors = npt.NDArray[np.float32]

# What drivers of accelerators leave on a machine: NVIDIA, the same in WSL, AMD, TPU. Asking
# Keras would import it, seconds that a machine without any of them need not spend.
_DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd", "/dev/accel0")

# Of the largest number: what rounding to float16, which has 11 bits, changes of it.
_AGREES = 2.0**-11


@dataclass(frozen=True)
class PendingBatch:
    """A batch on its way through the encoder."""

    _parts: list[Future[Vectors]]
    _photos: int

    def result(self) -> Vectors:
        """Wait for the vectors: (B, D) or, from a grid, (B, P, D)."""
        return np.concatenate([part.result() for part in self._parts])[: self._photos]

    def cancel(self) -> None:
        """Leave undone what is not begun; there will be no result."""
        for part in self._parts:
            part.cancel()


class Engine(ABC):
    """An encoder made ready to run, beside the thread that feeds it.

    Every pass has the same shape, short ones being padded, because the last bits of a
    convolution's output differ with the batch size.

    Attributes:
        batch_size: images that a pass takes, at most: photos or, of those, views.
        shape: of one photo's vectors: (D,) or (P, D).
        accelerated: whether it runs on a device of its own, not on the cores that decode.
        passes: begun so far.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        batch_size: int,
        part: int,
        threads: int,
        *,
        accelerated: bool = False,
    ) -> None:
        """Run passes in parts of `part` photos, `threads` parts at a time."""
        self.batch_size = batch_size
        self.shape = shape
        self.accelerated = accelerated
        self.passes = 0
        self._part = part
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="engine")
        self._clock = _BusyTimer()

    def start(self, photos: Pixels) -> PendingBatch:
        """Begin to encode at most `batch_size` images, (B, S, S, 3) RGB."""
        if len(photos) > self.batch_size:
            raise ValueError(f"{len(photos)} images in a batch of {self.batch_size}")
        self.passes += 1
        parts = []
        for first in range(0, len(photos), self._part):
            part = photos[first : first + self._part]
            padding = [(0, self._part - len(part)), *[(0, 0)] * (photos.ndim - 1)]
            self._clock.enter()
            future = self._pool.submit(self._infer, np.pad(part, padding))
            future.add_done_callback(self._clock.leave)
            parts.append(future)
        return PendingBatch(parts, len(photos))

    def encode(self, photos: Pixels) -> Vectors:
        """Encode at most `batch_size` images and wait for their vectors."""
        return self.start(photos).result()

    def busy(self) -> float:
        """Seconds, so far, in which at least one photo was being encoded."""
        return self._clock.busy()

    @abstractmethod
    def _infer(self, part: Pixels) -> Vectors:
        """Run the network on `part` photos; called from any of the threads."""


class _BusyTimer:
    """Measures the time in which at least one thing is under way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way = 0
        self._since = 0.0
        self._busy = 0.0

    def enter(self) -> None:
        with self._lock:
            if not self._under_way:
                self._since = time.monotonic()
            self._under_way += 1

    def leave(self, _: object) -> None:
        with self._lock:
            self._under_way -= 1
            if not self._under_way:
                self._busy += time.monotonic() - self._since

    def busy(self) -> float:
        with self._lock:
            return self._busy + (time.monotonic() - self._since if self._under_way else 0.0)


class KerasEngine(Engine):
    """The network on Keras' own backend, on whatever device that found."""

    def __init__(self, encoder: Any, batch_size: int, part: int | None = None) -> None:
        """Take a `keras.Model` from pixels to vectors, and passes in parts of `part` images."""
        from pipeline.backend import JIT_COMPILE  # noqa: PLC0415  (imports Keras)

        super().__init__(
            tuple(encoder.output_shape[1:]),
            batch_size,
            part=part or batch_size,
            threads=1,
            accelerated=_has_accelerator(),
        )
        encoder.compile(jit_compile=JIT_COMPILE)
        self._encoder = encoder

    def _infer(self, part: Pixels) -> Vectors:
        return np.asarray(self._encoder.predict_on_batch(part), np.float32)


class OpenVINOEngine(Engine):
    """The network in the OpenVINO runtime: a part of a pass on each group of cores."""

    # Photos a request. Fewer leave time between them, more leave cores idle at the end.
    _PART = 4

    def __init__(self, graph: Path, batch_size: int, cores: int | None = None) -> None:
        """Take a converted graph (see `graphs`) from pixels to vectors, for so many cores."""
        alone = batch_size == 1
        part = 1 if alone else self._PART
        properties = openvino_graphs.LATENCY if alone else openvino_graphs.THROUGHPUT
        if cores is not None:
            properties = {**properties, "INFERENCE_NUM_THREADS": str(cores)}
        compiled = openvino_graphs.compile_graph(graph, properties, batch_size=part)
        streams = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        shape = tuple(compiled.output(0).shape)[1:]
        # OpenVINO's bindings set themselves up when they first hand out an array; two threads
        # that are both the first wait for each other for ever.
        np.copy(compiled.create_infer_request().input_tensors[0].data)
        super().__init__(shape, batch_size, part, threads=1 if alone else streams)
        self._local = threading.local()
        self._compiled = compiled

    def _infer(self, part: Pixels) -> Vectors:
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        vectors: Vectors = self._local.request.infer(part)[0].copy()
        return vectors


def load_engine(
    kind: str, artifacts: Path, encoding: FeatureSpec, batch_size: int, cores: int | None = None
) -> Engine:
    """Return an engine for the encoder of the folder `artifacts`.

    Args:
        kind: "keras", "openvino" or "auto": OpenVINO on a CPU where it is installed, unless
            KERAS_BACKEND asks for another backend than TensorFlow.
        artifacts: the folder of encoder.json and encoder.weights.h5; OpenVINO's form of
            them is kept there too.
        encoding: what vectors to make.
        batch_size: photos that a pass takes, with all their views.
        cores: that OpenVINO uses, None being all; Keras' backends have variables for it.

    Raises:
        InputError: OpenVINO is asked for and cannot be had, or a file is absent or damaged.
    """
    if kind == "openvino" and not openvino_graphs.installed():
        raise InputError(
            "params.yaml: runtime.engine is openvino, which is not installed: "
            "`pip install -e '.[openvino]'`, or set it to auto"
        )
    if kind == "openvino" and not openvino_graphs.convertible():
        raise InputError(
            "params.yaml: runtime.engine is openvino, whose graphs are made on TensorFlow: "
            "unset KERAS_BACKEND, or set it to auto"
        )
    images = batch_size * encoding.view_count
    fits = openvino_graphs.convertible() and openvino_graphs.installed() and not _has_accelerator()
    if kind == "openvino" or (kind == "auto" and fits):
        graph = GraphFile(artifacts / openvino_graphs.FOLDER, "encoder", encoding.fingerprint)
        with openvino_graphs.ready(graph, lambda: _pixels_to_vectors(artifacts, encoding)) as path:
            return OpenVINOEngine(path, images, cores)
    network = _pixels_to_vectors(artifacts, encoding)
    if _has_accelerator() and encoding.dtype == "float16":
        network = _mixed_if_it_agrees(network, lambda: _pixels_to_vectors(artifacts, encoding))
    # A part of as many images as a pass has photos: more would need more memory.
    return KerasEngine(network, images, part=batch_size)


def _mixed_if_it_agrees(network: Any, build: Callable[[], Any]) -> Any:
    """Return `network` computing in float16 where that changes no more than storing does.

    Micikevicius et al. (2018), "Mixed precision training": weights and sums in float32.

    Args:
        network: from pixels to vectors.
        build: builds it again.
    """
    from pipeline.backend import keras  # noqa: PLC0415  (seconds)

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        mixed = build()
    finally:
        keras.config.set_dtype_policy(before)
    pixels = np.random.default_rng(0).integers(0, 256, (8, *network.input_shape[1:]), np.uint8)
    exact, rounded = (np.asarray(n.predict_on_batch(pixels), np.float32) for n in (network, mixed))
    apart = float(np.abs(exact - rounded).max() / np.abs(exact).max())
    agrees = apart <= _AGREES
    print(f"mixed precision {'used' if agrees else 'not used'}: {apart:.1e} apart from float32")
    return mixed if agrees else network


def _pixels_to_vectors(artifacts: Path, encoding: FeatureSpec) -> Any:
    # Both import Keras, seconds that a converted graph spares.
    from pipeline.features.encoders.networks import with_preprocessing  # noqa: PLC0415
    from pipeline.features.encoders.pretrained import load_encoder  # noqa: PLC0415

    network = load_encoder(artifacts, encoding.pooling, encoding.scales)
    return with_preprocessing(network, encoding.encoder)


def _has_accelerator() -> bool:
    if not any(Path(driver).exists() for driver in _DRIVERS):
        return False
    from pipeline.backend import has_accelerator  # noqa: PLC0415  (seconds)

    return has_accelerator()
