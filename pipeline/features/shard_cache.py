"""The shard cache: computed vectors, stored on disk by the digest of their photo's bytes."""

import errno
import io
import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError, collapsed_message, one_line
from pipeline.files import atomic_path, fingerprint

StoredVectors = npt.NDArray[Any]
VectorLocation = tuple[Path, int]  # a shard and a row of it

_KEYS, _VECTORS = "sha256.npy", "vectors.npy"
_OTHER_FORM = "its vectors have another type or shape than those of other shards"

# The errors that the parsers raise on a damaged shard. `RuntimeError` covers zip features that a
# damaged header requires; the last two come from NumPy's parser of array headers.
_CORRUPTION_ERRORS = (ValueError, KeyError, EOFError, RuntimeError, OverflowError, struct.error,
                      zlib.error, lzma.LZMAError, zipfile.BadZipFile, SyntaxError,
                      tokenize.TokenError)  # fmt: skip
# System errors that mean a damaged or missing shard: a bad block, a position before the file's
# start, no such file. Any other error, such as a missing permission, is no reason to remove it.
_CORRUPTION_ERRNOS = (None, errno.EIO, errno.EINVAL, errno.ENOENT)


class DamagedShardError(Exception):
    """A shard is not as it was written."""

    def __init__(self, shard: Path, reason: str) -> None:
        super().__init__(shard, reason)
        self._shard, self._reason = shard, reason

    def remove_shard(self) -> None:
        """Remove the shard, so that its photos are encoded again."""
        # The reason may quote bytes of the file.
        reason = one_line(self._reason)
        print(f"{self._shard} is damaged ({reason}); its photos are encoded again")
        self._shard.unlink(missing_ok=True)


class ShardCache:
    """The cached vectors of one `FeatureSpec`: a folder with one file per encoded batch.

    The folder is named by the spec's fingerprint and outlives all artifacts: no photo is
    encoded twice with the same spec. A shard is an uncompressed .npz of `sha256` (n,) and
    `vectors` (n, ...), written atomically. Three checks find a shard that is not as it was
    written: the zip format's checksums find damage; the file's name, a digest of its keys and
    the spec, shows if it came from another folder; and a digest of name and vectors shows if
    the vectors belong to another shard. Such a shard is removed and its photos are encoded
    again.

    Attributes:
        folder: the folder of the shards.
    """

    def __init__(self, cache: Path, spec_fingerprint: str) -> None:
        """Choose the folder below `cache`; nothing is read or created yet."""
        self.folder = cache / "features" / spec_fingerprint[:32]
        self._spec_fingerprint = spec_fingerprint

    def index(self, *, remove_damaged: bool = True) -> dict[str, VectorLocation]:
        """Return the location of each photo's vector, by the photo's sha256.

        This reads the keys only; `read_vectors` checks the vectors.

        Args:
            remove_damaged: whether damaged shards, which are never in the index, are removed.

        Raises:
            InputError: a shard cannot be read.
        """
        locations: dict[str, VectorLocation] = {}
        # Hidden files are still being written.
        for shard in sorted(self.folder.glob("[!.]*.npz")):
            if shard.exists() and not shard.is_file():  # opening a FIFO would never end
                continue
            try:
                with _open_shard(shard) as members:
                    keys = _read_keys(members)
                if shard != self._path(keys):
                    raise DamagedShardError(shard, "it belongs to other photos or another encoder")
            except DamagedShardError as error:
                if remove_damaged:
                    error.remove_shard()
            else:
                locations.update({key: (shard, row) for row, key in enumerate(keys)})
        return locations

    def add(self, keys: list[str], vectors: StoredVectors) -> None:
        """Write a batch as a shard: `vectors[i]` belongs to the photo with sha256 `keys[i]`."""
        shard = self._path(keys)
        with (
            atomic_path(shard, shared=True) as temporary,
            zipfile.ZipFile(temporary, "w") as members,
        ):
            # Members have no dates, so that equal batches give equal bytes.
            members.writestr(zipfile.ZipInfo(_KEYS), _npy_bytes(np.array(keys, dtype="S64")))
            members.writestr(zipfile.ZipInfo(_VECTORS), _npy_bytes(vectors))
            vectors_info = members.getinfo(_VECTORS)
            vectors_info.comment = _shard_digest(shard, vectors_info)

    def _path(self, keys: list[str]) -> Path:
        return self.folder / f"{fingerprint([self._spec_fingerprint, keys])[:32]}.npz"


def read_vectors(
    locations: Mapping[str, VectorLocation], keys: list[str]
) -> Iterator[tuple[list[int], StoredVectors]]:
    """Read the vectors of `keys`, shard by shard; yield positions in `keys` and their vectors.

    Keys without a location are skipped.

    Raises:
        DamagedShardError: a shard is not as it was written, or has vectors of another form than
            those before it.
        InputError: a shard cannot be read.
    """
    form = None
    for shard, positions in _by_shard(locations, keys).items():
        vectors = _read_rows(shard, [keys[position] for position in positions])
        form = form or _form(vectors)
        if _form(vectors) != form:
            raise DamagedShardError(shard, _OTHER_FORM)
        yield positions, vectors


def remove_damaged_shards(locations: Mapping[str, VectorLocation], keys: list[str]) -> None:
    """Remove every shard for which `read_vectors` would raise `DamagedShardError`.

    Where shards differ in form, those of the form that most photos have are kept.

    Raises:
        InputError: a shard cannot be read.
    """
    forms: dict[Path, str] = {}
    photos: Counter[str] = Counter()
    for shard, positions in _by_shard(locations, keys).items():
        try:
            vectors = _read_rows(shard, [keys[position] for position in positions])
        except DamagedShardError as error:
            error.remove_shard()
        else:
            forms[shard] = _form(vectors)
            photos[forms[shard]] += len(vectors)
    for shard, form in forms.items():
        if form != photos.most_common(1)[0][0]:
            DamagedShardError(shard, _OTHER_FORM).remove_shard()


def _form(vectors: StoredVectors) -> str:
    """Return the number type and shape of each photo's vectors."""
    return f"{vectors.dtype} {vectors.shape[1:]}"


def _by_shard(locations: Mapping[str, VectorLocation], keys: list[str]) -> dict[Path, list[int]]:
    """Group the positions of `keys` by the shard that holds their vectors."""
    shards: dict[Path, list[int]] = {}
    for position, key in enumerate(keys):
        if key in locations:
            shards.setdefault(locations[key][0], []).append(position)
    return shards


def _read_rows(shard: Path, keys: list[str]) -> StoredVectors:
    """Read the vectors of the photos `keys` from a shard and check them."""
    with _open_shard(shard) as members:
        rows = {key: row for row, key in enumerate(_read_keys(members))}
        vectors = _read_array(members, _VECTORS)
        matching = vectors.dtype.kind == "f" and vectors.shape[:1] == (len(rows),)
        if not matching or vectors.ndim < 2 or not np.isfinite(vectors).all():  # noqa: PLR2004
            raise ValueError("keys and vectors do not match")
        if not vectors.reshape(len(vectors), -1).any(axis=1).all():
            raise ValueError("a vector is all zeros")
        vectors_info = members.getinfo(_VECTORS)
        if vectors_info.comment != _shard_digest(shard, vectors_info):
            raise ValueError("its vectors belong to another shard")
        return vectors[[rows[key] for key in keys]]


@contextmanager
def _open_shard(shard: Path) -> Iterator[zipfile.ZipFile]:
    """Open a shard; raise signs of damage as `DamagedShardError`."""
    try:
        with zipfile.ZipFile(shard) as members:
            yield members
    except _CORRUPTION_ERRORS as error:
        raise DamagedShardError(shard, collapsed_message(error)) from None
    except OSError as error:
        if error.errno in _CORRUPTION_ERRNOS:
            raise DamagedShardError(shard, str(error)) from None
        raise InputError(
            f"{shard} cannot be read ({error.strerror}): make it readable, or remove it "
            "to have its photos encoded again"
        ) from None


def _read_array(members: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    """Read an array without unpickling anything, and without more memory than the file's size."""
    if members.getinfo(name).file_size > Path(str(members.filename)).stat().st_size:
        raise ValueError("it claims to be larger than its file")
    # Read the entire member: zipfile verifies the checksum only at its end.
    data = io.BytesIO(members.read(name))
    if np.lib.format.read_magic(data) != (1, 0):
        raise ValueError("its arrays have another format version")
    shape, _, dtype = np.lib.format.read_array_header_1_0(data)
    size = data.getbuffer().nbytes - data.tell()
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize != size:
        raise ValueError("the header of an array does not match its size")
    data.seek(0)
    return np.lib.format.read_array(data, allow_pickle=False)


def _read_keys(members: zipfile.ZipFile) -> list[str]:
    keys = _read_array(members, _KEYS)
    if keys.dtype.kind != "S" or keys.ndim != 1:
        raise ValueError("its keys are not digests")
    return [key.decode("ascii") for key in keys.tolist()]


def _shard_digest(shard: Path, vectors_info: zipfile.ZipInfo) -> bytes:
    """Digest a shard's name, which stands for its keys, and its vectors' checksum."""
    return fingerprint([shard.name, vectors_info.CRC]).encode()


def _npy_bytes(array: npt.NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=False)
    return file.getvalue()
