"""An extraction in its own process, which kills itself at a given point.

`python -m tests.support.kill_points FOLDER [WHERE POINT COUNT [SIGNAL]]` extracts FOLDER/photos
into FOLDER/artifacts/features.h5 with a cheap encoder, and records every photo that it encodes in
FOLDER/computed. The product has no hooks: the functions that it calls are patched here.
"""

import hashlib
import os
import signal
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np

from pipeline.features.encoders.engines import Engine, Pixels, Vectors
from pipeline.features.executors.local import LocalExecutor
from pipeline.features.extractor import ExtractionResult, Extractor
from pipeline.features.feature_spec import FeatureSpec
from pipeline.stages.run import run_stage
from pipeline.storage.hdf5 import DeferredErrorFile

# Two passes are pending at a time; together they are a batch.
PASS = 2
BATCH = 2 * PASS

FILE_POINTS = (
    "before open",
    "half written",
    "before fsync",
    "before rename",
    "after rename",
    "after the folder's fsync",
)
POINTS = {
    "encoder": ("before a pass", "after a pass"),
    "shard": FILE_POINTS,
    "store": (*FILE_POINTS, "after rows"),
}

FEATURE_SPEC = FeatureSpec(
    encoder="Colours",
    input_size=32,
    weights_sha256="a" * 64,
    preprocessing="none",
    preprocessing_sha256="b" * 64,
    graph_sha256="c" * 64,
    decoding="as it is",
    decoding_sha256="d" * 64,
    views="whole",
    pooling="average",
    scales=1,
    dtype="float32",
)


@dataclass
class KillPoint:
    """Sends the process a signal when it reaches a point for the `count`th time.

    Attributes:
        where: a key of `POINTS`, the part of the extraction.
        point: one of the points there.
        count: how often the point has to be reached.
        signal_sent: the signal.
    """

    where: str = ""
    point: str = ""
    count: int = 1
    signal_sent: signal.Signals = signal.SIGKILL

    def is_now(self, where: str, point: str) -> bool:
        """Return whether reaching that point now sends the signal."""
        return (where, point, 1) == (self.where, self.point, self.count)

    def reach(self, where: str, point: str) -> None:
        """Note that the process has reached a point."""
        if self.is_now(where, point):
            os.kill(os.getpid(), self.signal_sent)
        if (where, point) == (self.where, self.point):
            self.count -= 1

    def install(self) -> None:
        """Patch the functions that the product calls, so that they report points."""
        sys.addaudithook(self._on_audit_event)
        self._patch_fsync()
        self._patch_shard_writes()
        self._patch_store_writes()

    def _on_audit_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and "w" in (arguments[1] or ""):
            self.reach(_kind(str(arguments[0])), "before open")

    def _patch_fsync(self) -> None:
        fsync, last_file = os.fsync, ""

        def patched(descriptor: int) -> None:
            nonlocal last_file
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            points = ("after rename", "after the folder's fsync")
            if not path.is_dir():
                last_file = str(path)
                points = ("before fsync", "before rename")
            self.reach(_kind(last_file), points[0])
            fsync(descriptor)
            self.reach(_kind(last_file), points[1])

        mock.patch.object(os, "fsync", patched).start()

    def _patch_shard_writes(self) -> None:
        writestr = zipfile.ZipFile.writestr

        def patched(shard: zipfile.ZipFile, member: zipfile.ZipInfo, data: bytes) -> None:
            if member.filename == "vectors.npy":
                if self.is_now("shard", "half written"):
                    writestr(shard, member, data[: len(data) // 2])
                    assert shard.fp is not None
                    shard.fp.flush()
                self.reach("shard", "half written")
            writestr(shard, member, data)

        mock.patch.object(zipfile.ZipFile, "writestr", patched).start()

    def _patch_store_writes(self) -> None:
        write, set_item = DeferredErrorFile.write, h5py.Dataset.__setitem__

        def patched_write(output: DeferredErrorFile, data: Any) -> int:
            if self.is_now("store", "half written"):
                write(output, data[: len(data) // 2])
            self.reach("store", "half written")
            return write(output, data)

        def patched_set_item(dataset: Any, rows: Any, values: Any) -> None:
            set_item(dataset, rows, values)
            self.reach("store", "after rows")

        mock.patch.object(DeferredErrorFile, "write", patched_write).start()
        mock.patch.object(h5py.Dataset, "__setitem__", patched_set_item).start()


def _kind(path: str) -> str:
    """Return "shard", "store" or "" for a path, which may be temporary."""
    return {".npz": "shard", ".h5": "store"}.get(Path(path).suffix, "")


class KillableEngine(Engine):
    """Encodes an image as its mean colour and appends the image's digest to a log."""

    def __init__(self, log: Path, kill_point: KillPoint) -> None:
        super().__init__((3,), PASS, chunk_size=PASS, threads=1)
        self._log, self._kill_point = log, kill_point

    def _infer(self, images: Pixels) -> Vectors:
        self._kill_point.reach("encoder", "before a pass")
        vectors: Vectors = images.astype(np.float32).mean(axis=(1, 2))
        digests = [hashlib.sha256(image).hexdigest() for image in images if image.any()]
        log = os.open(self._log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(log, "".join(f"{digest}\n" for digest in digests).encode())
        os.close(log)
        self._kill_point.reach("encoder", "after a pass")
        return vectors


def extract(
    folder: Path, kill_point: KillPoint | None = None, feature_spec: FeatureSpec = FEATURE_SPEC
) -> ExtractionResult:
    """Extract `folder`/photos into `folder`/artifacts/features.h5."""
    root = folder / "photos"
    executor = LocalExecutor(
        lambda: KillableEngine(folder / "computed", kill_point or KillPoint()),
        workers=2,
        progress_seconds=3600,
    )
    return Extractor(
        feature_spec=feature_spec,
        executor=executor,
        cache=folder / "cache",
        max_pixels=10_000,
        max_failed_share=0.5,
    ).extract(
        {path.name: path for path in sorted(root.iterdir())},
        root,
        folder / "artifacts" / "features.h5",
    )


def main() -> None:
    """Run the command line, see the module."""
    folder, *options = sys.argv[1:]
    where, point, count, name = (*options, *("", "", "1", "SIGKILL")[len(options) :])
    kill_point = KillPoint(where, point, int(count), signal.Signals[name])
    kill_point.install()
    extract(Path(folder), kill_point)


if __name__ == "__main__":
    run_stage(main)
