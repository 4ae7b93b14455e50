"""Stage `extract` that also logs, in the file `computed`, each photo that its encoder has computed.

For `random_kills`: a killed process cannot report what it computed.
"""

import hashlib
import os
from collections.abc import Callable
from typing import Any
from unittest import mock

from pipeline.features.encoders.engines import Engine, KerasEngine, OpenVINOEngine, Pixels, Vectors
from pipeline.stages import extract
from pipeline.stages.run import run_stage


def _with_log(infer: Callable[[Any, Pixels], Vectors]) -> Callable[[Engine, Pixels], Vectors]:
    def logged_infer(engine: Engine, part: Pixels) -> Vectors:
        vectors = infer(engine, part)
        # Short batches are padded with black images.
        digests = [hashlib.sha256(pixels).hexdigest() for pixels in part if pixels.any()]
        log = os.open("computed", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(log, "".join(f"{digest}\n" for digest in digests).encode())
        os.close(log)
        return vectors

    return logged_infer


if __name__ == "__main__":
    for engine_class in (KerasEngine, OpenVINOEngine):
        infer = engine_class._infer  # noqa: SLF001  (there is no hook)
        mock.patch.object(engine_class, "_infer", _with_log(infer)).start()
    run_stage(extract.main)
