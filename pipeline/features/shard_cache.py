"""Shards: vectors already computed, kept by the content of the photo they came from."""

import errno
import io
import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.files import atomic_path, fingerprint

StoredVectors = npt.NDArray[Any]
Place = tuple[Path, int]  # a shard and a row of it

_KEYS, _VECTORS = "sha256.npy", "vectors.npy"

# `RuntimeError` covers zip features that a damaged header asks for; the last two come from
# NumPy's parser of array headers.
_DAMAGE = (ValueError, KeyError, EOFError, RuntimeError, OverflowError, struct.error, zlib.error,
           lzma.LZMAError, zipfile.BadZipFile, SyntaxError, tokenize.TokenError)  # fmt: skip
# What damage makes the system say: a bad block, a place before the file's start; and that a
# shard is gone. Whatever else it says, no permission say, is no reason to drop a shard.
_DAMAGE_NUMBERS = (None, errno.EIO, errno.EINVAL, errno.ENOENT)


class DamagedShardError(Exception):
    """A shard is not as it was written."""

    def __init__(self, shard: Path, reason: str) -> None:
        super().__init__(shard, reason)
        self._shard, self._reason = shard, reason

    def drop(self) -> None:
        """Remove the shard, so that its photos are computed again."""
        print(f"{self._shard} is damaged ({self._reason}); its photos are computed again")
        self._shard.unlink(missing_ok=True)


class ShardFolder:
    """One encoding's vectors on disk, a file for every batch that was computed.

    The folder is named by the encoding's fingerprint and outlives every artefact: a
    photo's bytes, once seen by an encoder, are not computed again. A shard is an
    uncompressed .npz of `sha256` (n,) and `vectors` (n, ...), written atomically. The zip
    format's checksums tell a damaged one; its name, a digest of its photos and the encoding,
    one that came from another folder; its seal, one whose vectors are another's. Whatever
    is not as it was written is dropped, and so computed again.
    """

    def __init__(self, cache: Path, encoding_fingerprint: str) -> None:
        """Name the folder below `cache`; nothing is read or made yet."""
        self.folder = cache / "features" / encoding_fingerprint[:32]
        self._encoding_fingerprint = encoding_fingerprint

    def index(self, *, drop: bool = True) -> dict[str, Place]:
        """Return where each photo's vector is, by the photo's sha256.

        Reads no vector: whether those are as they were written, `gather` finds out.

        Args:
            drop: whether damaged shards, which are not in the index, are removed.

        Raises:
            InputError: a shard cannot be read.
        """
        places: dict[str, Place] = {}
        # Hidden ones are still being written.
        for shard in sorted(self.folder.glob("[!.]*.npz")):
            if shard.is_dir():
                continue
            try:
                with _reading(shard) as members:
                    keys = _keys(members)
                if shard != self._path(keys):
                    raise DamagedShardError(shard, "it is of other photos or another encoder")
            except DamagedShardError as error:
                if drop:
                    error.drop()
            else:
                places.update({key: (shard, row) for row, key in enumerate(keys)})
        return places

    def add(self, keys: list[str], vectors: StoredVectors) -> None:
        """Keep a batch: `vectors[i]` belongs to the photo of digest `keys[i]`."""
        shard = self._path(keys)
        with atomic_path(shard) as temporary, zipfile.ZipFile(temporary, "w") as members:
            # Without dates: equal batches, equal bytes.
            members.writestr(zipfile.ZipInfo(_KEYS), _npy(np.array(keys, dtype="S64")))
            members.writestr(zipfile.ZipInfo(_VECTORS), _npy(vectors))
            vouched = members.getinfo(_VECTORS)
            vouched.comment = _seal(shard, vouched)

    def _path(self, keys: list[str]) -> Path:
        return self.folder / f"{fingerprint([self._encoding_fingerprint, keys])[:32]}.npz"


def gather(
    places: Mapping[str, Place], keys: list[str]
) -> Iterator[tuple[list[int], StoredVectors]]:
    """Yield, shard by shard, which positions of `keys` it fills and with what rows.

    Raises:
        DamagedShardError: a shard is not as it was written.
        InputError: a shard cannot be read.
    """
    for shard, positions in _by_shard(places, keys).items():
        yield positions, _rows(shard, [keys[position] for position in positions])


def drop_damaged(places: Mapping[str, Place], keys: list[str]) -> None:
    """Remove every shard that `gather` would find damaged.

    Raises:
        InputError: a shard cannot be read.
    """
    for shard, positions in _by_shard(places, keys).items():
        try:
            _rows(shard, [keys[position] for position in positions])
        except DamagedShardError as error:
            error.drop()


def _by_shard(places: Mapping[str, Place], keys: list[str]) -> dict[Path, list[int]]:
    """Group positions of `keys` by the shard that holds their vectors."""
    shards: dict[Path, list[int]] = {}
    for position, key in enumerate(keys):
        shards.setdefault(places[key][0], []).append(position)
    return shards


def _rows(shard: Path, keys: list[str]) -> StoredVectors:
    """Read the vectors of the photos `keys`."""
    with _reading(shard) as members:
        rows = {key: row for row, key in enumerate(_keys(members))}
        vectors = _array(members, _VECTORS)
        fit = vectors.dtype.kind == "f" and vectors.shape[:1] == (len(rows),)
        if not fit or not np.isfinite(vectors).all():
            raise ValueError("keys and vectors do not fit")
        vouched = members.getinfo(_VECTORS)
        if vouched.comment != _seal(shard, vouched):
            raise ValueError("its vectors are not its own")
        return vectors[[rows[key] for key in keys]]


@contextmanager
def _reading(shard: Path) -> Iterator[zipfile.ZipFile]:
    """Open a shard; whatever shows there that it is damaged becomes `DamagedShardError`."""
    try:
        with zipfile.ZipFile(shard) as members:
            yield members
    except _DAMAGE as error:
        raise DamagedShardError(shard, str(error)) from None
    except OSError as error:
        if error.errno in _DAMAGE_NUMBERS:
            raise DamagedShardError(shard, str(error)) from None
        raise InputError(
            f"{shard} cannot be read ({error.strerror}): make it readable, or remove it "
            "to have its photos computed again"
        ) from None


def _array(members: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    """Read an array, never unpickling anything."""
    # The whole member, because its checksum is compared at its end only.
    data = io.BytesIO(members.read(name))
    return np.lib.format.read_array(data, allow_pickle=False)


def _keys(members: zipfile.ZipFile) -> list[str]:
    keys = _array(members, _KEYS)
    if keys.dtype.kind != "S" or keys.ndim != 1:
        raise ValueError("its keys are no digests")
    return [key.decode("ascii") for key in keys.tolist()]


def _seal(shard: Path, vectors: zipfile.ZipInfo) -> bytes:
    """Digest a shard's name, and so its keys, with its vectors' checksum."""
    return fingerprint([shard.name, vectors.CRC]).encode()


def _npy(array: npt.NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=False)
    return file.getvalue()
