"""Shards: vectors already computed, kept by the content of the photo they came from."""

import hashlib
import io
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.files import atomic_path

Vectors = npt.NDArray[Any]

# `RuntimeError` covers zip features that a damaged header asks for; the last two come from
# NumPy's parser of array headers.
_DAMAGE = (OSError, ValueError, KeyError, EOFError, RuntimeError, OverflowError, struct.error,
           zlib.error, zipfile.BadZipFile, SyntaxError, tokenize.TokenError)  # fmt: skip


class ShardFolder:
    """One encoding's vectors on disk, a file for every batch that was computed.

    The folder is named by the encoding's fingerprint and outlives every artefact: a
    photo's bytes, once seen by an encoder, are not computed again. A shard is an
    uncompressed .npz of `sha256` (n,) and `vectors` (n, ...), written atomically; the
    zip format's checksums tell a damaged one, which is dropped and so computed again.
    """

    def __init__(self, cache: Path, encoding_fingerprint: str) -> None:
        """Name the folder below `cache`; nothing is read or made yet."""
        self.folder = cache / "features" / encoding_fingerprint[:32]

    def index(self) -> dict[str, tuple[Path, int]]:
        """Return where each photo's vector is: sha256 to (shard, row). Reads every byte."""
        places: dict[str, tuple[Path, int]] = {}
        for shard in sorted(self.folder.glob("*.npz")):
            try:
                keys, _ = self.read(shard)
            except _DAMAGE as error:
                print(f"{shard} is damaged ({error}); its photos are computed again")
                shard.unlink()
                continue
            places.update({key: (shard, row) for row, key in enumerate(keys)})
        return places

    def add(self, keys: list[str], vectors: Vectors) -> None:
        """Keep a batch: `vectors[i]` belongs to the photo of digest `keys[i]`."""
        name = hashlib.sha256("".join(keys).encode()).hexdigest()[:32]
        with atomic_path(self.folder / f"{name}.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, sha256=np.array(keys, dtype="S64"), vectors=vectors)

    @staticmethod
    def read(shard: Path) -> tuple[list[str], Vectors]:
        """Return a shard's keys and vectors, never unpickling anything.

        Raises one of `_DAMAGE` where they are not as they were written.
        """
        with zipfile.ZipFile(shard) as members:
            # Whole members, because their checksums are compared at their ends only.
            keys, vectors = (
                np.lib.format.read_array(io.BytesIO(members.read(name)), allow_pickle=False)
                for name in ("sha256.npy", "vectors.npy")
            )
        if len(keys) != len(vectors) or not np.isfinite(vectors).all():
            raise ValueError("keys and vectors do not fit")
        return [key.decode("ascii") for key in keys], vectors


def gather(
    places: Mapping[str, tuple[Path, int]], keys: list[str]
) -> Iterator[tuple[list[int], Vectors]]:
    """Yield, shard by shard, which positions of `keys` it fills and with what rows."""
    wanted: dict[Path, list[tuple[int, int]]] = {}
    for position, key in enumerate(keys):
        shard, row = places[key]
        wanted.setdefault(shard, []).append((position, row))
    for shard, pairs in wanted.items():
        _, vectors = ShardFolder.read(shard)
        yield [position for position, _ in pairs], vectors[[row for _, row in pairs]]
