"""An extraction in its own process, which kills itself at a given point.

`python -m tests.support.kill_points FOLDER [WHERE POINT COUNT [SIGNAL]]` extracts FOLDER/photos
into FOLDER/artifacts/features.h5 with an encoder that costs nothing, and writes every photo that
it encodes to FOLDER/computed. The product has no hooks: the functions it calls are patched here.
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
from pipeline.storage.hdf5 import Disk

# Two passes run at a time; together they hold a batch.
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

ENCODING = FeatureSpec(
    encoder="Colours",
    input_size=32,
    weights_sha256="a" * 64,
    preprocessing="none",
    preprocessing_sha256="b" * 64,
    decoding="as it is",
    views="whole",
    pooling="average",
    scales=1,
    dtype="float32",
)


@dataclass
class Trap:
    """Kills (or stops) the process when it reaches a point for the `count`th time."""

    where: str = ""
    point: str = ""
    count: int = 1
    signal_sent: signal.Signals = signal.SIGKILL

    def springs(self, where: str, point: str) -> bool:
        """Whether the process is killed at this point now."""
        return (where, point, 1) == (self.where, self.point, self.count)

    def reach(self, where: str, point: str) -> None:
        """Kill the process if this is the point; else count down."""
        if self.springs(where, point):
            os.kill(os.getpid(), self.signal_sent)
        if (where, point) == (self.where, self.point):
            self.count -= 1

    def install(self) -> None:
        """Wrap the functions that the product calls."""
        sys.addaudithook(self._audit)
        self._wrap_fsync()
        self._wrap_shard_writes()
        self._wrap_store_writes()

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and "w" in (arguments[1] or ""):
            self.reach(_kind(str(arguments[0])), "before open")

    def _wrap_fsync(self) -> None:
        fsync, renamed = os.fsync, ""

        def trapped(descriptor: int) -> None:
            nonlocal renamed
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            points = ("after rename", "after the folder's fsync")
            if not path.is_dir():
                renamed = str(path)
                points = ("before fsync", "before rename")
            self.reach(_kind(renamed), points[0])
            fsync(descriptor)
            self.reach(_kind(renamed), points[1])

        mock.patch.object(os, "fsync", trapped).start()

    def _wrap_shard_writes(self) -> None:
        add = zipfile.ZipFile.writestr

        def trapped(shard: zipfile.ZipFile, member: zipfile.ZipInfo, data: bytes) -> None:
            if member.filename == "vectors.npy":
                if self.springs("shard", "half written"):
                    add(shard, member, data[: len(data) // 2])
                    assert shard.fp is not None
                    shard.fp.flush()
                self.reach("shard", "half written")
            add(shard, member, data)

        mock.patch.object(zipfile.ZipFile, "writestr", trapped).start()

    def _wrap_store_writes(self) -> None:
        write, put = Disk.write, h5py.Dataset.__setitem__

        def trapped_write(disk: Disk, data: Any) -> int:
            if self.springs("store", "half written"):
                write(disk, data[: len(data) // 2])
            self.reach("store", "half written")
            return write(disk, data)

        def trapped_put(dataset: Any, places: Any, values: Any) -> None:
            put(dataset, places, values)
            self.reach("store", "after rows")

        mock.patch.object(Disk, "write", trapped_write).start()
        mock.patch.object(h5py.Dataset, "__setitem__", trapped_put).start()


def _kind(path: str) -> str:
    """Return `shard` or `store`, by the suffix, which temporary files have too."""
    return {".npz": "shard", ".h5": "store"}.get(Path(path).suffix, "")


class TrappedEngine(Engine):
    """Encodes a photo as its mean colours and writes the photo's digest to a log."""

    def __init__(self, log: Path, trap: Trap) -> None:
        super().__init__((3,), PASS, part=PASS, threads=1)
        self._log, self._trap = log, trap

    def _infer(self, part: Pixels) -> Vectors:
        self._trap.reach("encoder", "before a pass")
        vectors: Vectors = part.astype(np.float32).mean(axis=(1, 2))
        photos = [hashlib.sha256(pixels).hexdigest() for pixels in part if pixels.any()]
        log = os.open(self._log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(log, "".join(f"{photo}\n" for photo in photos).encode())
        os.close(log)
        self._trap.reach("encoder", "after a pass")
        return vectors


def extract(
    folder: Path, trap: Trap | None = None, encoding: FeatureSpec = ENCODING
) -> ExtractionResult:
    """Extract `folder`/photos into `folder`/artifacts/features.h5."""
    root = folder / "photos"
    executor = LocalExecutor(
        lambda: TrappedEngine(folder / "computed", trap or Trap()), workers=2, progress_seconds=3600
    )
    return Extractor(
        encoding=encoding,
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
    """Run the extraction that the command line describes."""
    folder, *arguments = sys.argv[1:]
    where, point, count, name = (*arguments, *("", "", "1", "SIGKILL")[len(arguments) :])
    trap = Trap(where, point, int(count), signal.Signals[name])
    trap.install()
    extract(Path(folder), trap)


if __name__ == "__main__":
    run_stage(main)
