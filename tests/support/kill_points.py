"""An extraction in a process of its own, which kills itself at a point that it is told.

`python -m tests.kill_points FOLDER [WHERE POINT COUNT [SIGNAL]]` extracts FOLDER/photos into
FOLDER/artifacts/features.h5 with an encoder that costs nothing, and notes in FOLDER/computed
every photo that went through it. The product has no hooks: what it calls is replaced here.
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

# Two passes are under way at a time: a batch is what they hold.
PASS = 2
BATCH = 2 * PASS

OF_A_FILE = (
    "before open",
    "half written",
    "before fsync",
    "before rename",
    "after rename",
    "after the folder's fsync",
)
POINTS = {
    "encoder": ("before a pass", "after a pass"),
    "shard": OF_A_FILE,
    "store": (*OF_A_FILE, "after rows"),
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
    """Kills the process (or stops it) when it comes to a point for the `count`th time."""

    where: str = ""
    point: str = ""
    count: int = 1
    sends: signal.Signals = signal.SIGKILL

    def springs(self, where: str, point: str) -> bool:
        """Whether being at that point now is the end."""
        return (where, point, 1) == (self.where, self.point, self.count)

    def at(self, where: str, point: str) -> None:
        """Say that the process is at a point."""
        if self.springs(where, point):
            os.kill(os.getpid(), self.sends)
        if (where, point) == (self.where, self.point):
            self.count -= 1

    def lay(self) -> None:
        """Replace what the product calls by the same with traps around it."""
        sys.addaudithook(self._audit)
        self._in_fsync()
        self._in_writes_of_shards()
        self._in_writes_of_the_store()

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and "w" in (arguments[1] or ""):
            self.at(_kind(str(arguments[0])), "before open")

    def _in_fsync(self) -> None:
        fsync, renamed = os.fsync, ""

        def trapped(descriptor: int) -> None:
            nonlocal renamed
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            points = ("after rename", "after the folder's fsync")
            if not path.is_dir():
                renamed = str(path)
                points = ("before fsync", "before rename")
            self.at(_kind(renamed), points[0])
            fsync(descriptor)
            self.at(_kind(renamed), points[1])

        mock.patch.object(os, "fsync", trapped).start()

    def _in_writes_of_shards(self) -> None:
        add = zipfile.ZipFile.writestr

        def trapped(shard: zipfile.ZipFile, member: zipfile.ZipInfo, data: bytes) -> None:
            if member.filename == "vectors.npy":
                if self.springs("shard", "half written"):
                    add(shard, member, data[: len(data) // 2])
                    assert shard.fp is not None
                    shard.fp.flush()
                self.at("shard", "half written")
            add(shard, member, data)

        mock.patch.object(zipfile.ZipFile, "writestr", trapped).start()

    def _in_writes_of_the_store(self) -> None:
        write, put = Disk.write, h5py.Dataset.__setitem__

        def trapped_write(disk: Disk, data: Any) -> int:
            if self.springs("store", "half written"):
                write(disk, data[: len(data) // 2])
            self.at("store", "half written")
            return write(disk, data)

        def trapped_put(dataset: Any, places: Any, values: Any) -> None:
            put(dataset, places, values)
            self.at("store", "after rows")

        mock.patch.object(Disk, "write", trapped_write).start()
        mock.patch.object(h5py.Dataset, "__setitem__", trapped_put).start()


def _kind(path: str) -> str:
    """Tell a shard and the store, temporary or not."""
    return {".npz": "shard", ".h5": "store"}.get(Path(path).suffix, "")


class Colours(Engine):
    """Encodes a photo as its mean colours and notes in a file whose colours it told."""

    def __init__(self, notes: Path, trap: Trap) -> None:
        super().__init__((3,), PASS, part=PASS, threads=1)
        self._notes, self._trap = notes, trap

    def _infer(self, part: Pixels) -> Vectors:
        self._trap.at("encoder", "before a pass")
        vectors: Vectors = part.astype(np.float32).mean(axis=(1, 2))
        photos = [hashlib.sha256(pixels).hexdigest() for pixels in part if pixels.any()]
        notes = os.open(self._notes, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.write(notes, "".join(f"{photo}\n" for photo in photos).encode())
        os.close(notes)
        self._trap.at("encoder", "after a pass")
        return vectors


def extract(
    folder: Path, trap: Trap | None = None, encoding: FeatureSpec = ENCODING
) -> ExtractionResult:
    """Extract `folder`/photos into `folder`/artifacts/features.h5."""
    root = folder / "photos"
    executor = LocalExecutor(
        lambda: Colours(folder / "computed", trap or Trap()), workers=2, progress_seconds=3600
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
    """Do what the command line says."""
    folder, *given = sys.argv[1:]
    where, point, count, name = (*given, *("", "", "1", "SIGKILL")[len(given) :])
    trap = Trap(where, point, int(count), signal.Signals[name])
    trap.lay()
    extract(Path(folder), trap)


if __name__ == "__main__":
    run_stage(main)
