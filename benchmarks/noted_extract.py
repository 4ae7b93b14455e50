"""Stage `extract`, which notes in the file `computed` every photo that its encoder is done with.

For `random_kills`: a killed process cannot tell what it computed.
"""

import hashlib
import os
from collections.abc import Callable
from typing import Any
from unittest import mock

from pipeline.features.encoders.engines import Engine, KerasEngine, OpenVINOEngine, Pixels, Vectors
from pipeline.stages import extract
from pipeline.stages.run import run_stage


def _noting(infer: Callable[[Any, Pixels], Vectors]) -> Callable[[Engine, Pixels], Vectors]:
    def noting(engine: Engine, part: Pixels) -> Vectors:
        vectors = infer(engine, part)
        # What short parts are padded with is black.
        photos = [hashlib.sha256(pixels).hexdigest() for pixels in part if pixels.any()]
        notes = os.open("computed", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(notes, "".join(f"{photo}\n" for photo in photos).encode())
        os.close(notes)
        return vectors

    return noting


if __name__ == "__main__":
    for kind in (KerasEngine, OpenVINOEngine):
        mock.patch.object(kind, "_infer", _noting(kind._infer)).start()  # noqa: SLF001  (no hooks)
    run_stage(extract.main)
