"""Two threads that use a new engine at the same time."""

import subprocess
import sys
from pathlib import Path

import pytest

# A graph of one layer, run by two threads that wait for each other first and are switched as
# often as possible. Without the engine's protection, two of five processes deadlock.
CODE = """
import sys
import threading
from pathlib import Path
import numpy as np
from pipeline.features.encoders.engines import OpenVINOEngine
import openvino
from openvino import opset13

class BarrierEngine(OpenVINOEngine):
    barrier = threading.Barrier(2)

    def _infer(self, images):
        self.barrier.wait()
        return super()._infer(images)

path = Path(sys.argv[1])
pixels = opset13.parameter([-1, 2, 2, 3], np.uint8)
colours = opset13.reduce_mean(opset13.convert(pixels, "f32"), np.array([1, 2]))
openvino.save_model(openvino.Model([colours], [pixels]), path, compress_to_fp16=False)
sys.setswitchinterval(1e-6)
engine = BarrierEngine(path, 8, cores=2)
photos = np.arange(8 * 12, dtype=np.uint8).reshape(8, 2, 2, 3)
assert np.array_equal(engine.encode(photos), photos.mean(axis=(1, 2), dtype=np.float32))
"""


def test_the_first_two_threads_do_not_deadlock(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    for _ in range(8):
        command = [sys.executable, "-c", CODE, str(tmp_path / "graph.xml")]
        subprocess.run(command, check=True, timeout=60)
