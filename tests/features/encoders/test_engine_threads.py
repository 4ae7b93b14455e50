"""Threads that are the first to use an engine, both at once."""

import subprocess
import sys
from pathlib import Path

import pytest

# A graph of one layer, two threads that wait until both are there, and that are switched as
# often as can be: where they can hinder each other, two processes in five hang.
CODE = """
import sys
import threading
from pathlib import Path
import numpy as np
from pipeline.features.encoders.engines import OpenVINOEngine
import openvino
from openvino import opset13

class Both(OpenVINOEngine):
    both = threading.Barrier(2)

    def _infer(self, part):
        self.both.wait()
        return super()._infer(part)

path = Path(sys.argv[1])
pixels = opset13.parameter([-1, 2, 2, 3], np.uint8)
colours = opset13.reduce_mean(opset13.convert(pixels, "f32"), np.array([1, 2]))
openvino.save_model(openvino.Model([colours], [pixels]), path, compress_to_fp16=False)
sys.setswitchinterval(1e-6)
engine = Both(path, 8, cores=2)
photos = np.arange(8 * 12, dtype=np.uint8).reshape(8, 2, 2, 3)
assert np.array_equal(engine.encode(photos), photos.mean(axis=(1, 2), dtype=np.float32))
"""


def test_threads_that_are_the_first_never_wait_for_each_other(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    for _ in range(8):
        command = [sys.executable, "-c", CODE, str(tmp_path / "graph.xml")]
        subprocess.run(command, check=True, timeout=60)
