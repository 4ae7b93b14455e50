"""The feature store: one HDF5 file, a row for every photo that could be encoded.

Layout (docs/artefacts.md): `features` (N, D) or (N, P, D), where photos have several views
(N, V, D) or (N, V, P, D), contiguous, float16 or float32;
`image_id`, `photo_sha256` and `vector_sha256` (N,), rows sorted by id; `failed/image_id`
and `failed/reason` (F,); attributes say who made it.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError, collapsed
from pipeline.features.feature_spec import FeatureSpec
from pipeline.features.views import join
from pipeline.files import atomic_path, fingerprint
from pipeline.storage.hdf5 import (
    DAMAGE,
    Disk,
    check_extent,
    create,
    create_group,
    open_self_contained,
    read_attribute,
)

FORMAT_VERSION = 4
FIX = "run `dvc repro extract`"
_PART = 256  # photos: a grid of Xception, in two scales, is 1.1 MB of each

VectorRows = tuple[list[int], npt.NDArray[Any]]


def write_store(
    path: Path,
    encoding: FeatureSpec,
    photos: Mapping[str, str],
    failed: Mapping[str, str],
    rows: Iterable[VectorRows],
) -> str:
    """Write a feature store atomically: equal input, equal bytes.

    Args:
        path: the file to write.
        encoding: how the vectors were made.
        photos: image_id to the photo's sha256; its sorted ids are the rows.
        failed: image_id to the reason why there is no vector.
        rows: positions in the sorted ids with their vectors, as in the layout, any order;
            every position has to come exactly once.

    Returns:
        The store's fingerprint.

    Raises:
        OSError: the disk does not take it all; `path` is left as it was.
    """
    ids = sorted(photos)
    with atomic_path(path) as temporary, create(temporary) as (file, disk):
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["encoding"] = np.bytes_(json.dumps(asdict(encoding), sort_keys=True))
        file.attrs["fingerprint"] = np.bytes_(_fingerprint(encoding, photos))
        _write_strings(file, "image_id", ids)
        _write_strings(file, "photo_sha256", [photos[image_id] for image_id in ids])
        create_group(file, "failed")
        _write_strings(file, "failed/image_id", sorted(failed))
        _write_strings(file, "failed/reason", [failed[image_id] for image_id in sorted(failed)])
        _write_features(file, len(ids), encoding.dtype, _checked(rows, disk))
    return _fingerprint(encoding, photos)


@dataclass(frozen=True)
class FeatureStore:
    """A feature store opened for reading; vectors stay on disk until they are asked for.

    Attributes:
        path: the file.
        encoding: how the vectors were made.
        fingerprint: of the encoding and every photo's content.
        image_ids: the rows' ids, sorted.
        failed: image_id to the reason why there is no vector.
        shape: of one view's vectors: (D,) or (P, D).
        vector_digests: the rows' `vector_sha256`.
        features: all vectors, as in the layout, mapped into memory, not read. They stay
            those of this store if its file is replaced.
    """

    path: Path
    encoding: FeatureSpec
    fingerprint: str
    image_ids: list[str]
    failed: dict[str, str]
    shape: tuple[int, ...]
    vector_digests: list[str]
    features: npt.NDArray[Any] = field(repr=False, compare=False)

    @staticmethod
    def open(path: Path) -> "FeatureStore":
        """Open and check a store.

        Raises:
            InputError: the file is absent, damaged, of another version, not
                self-contained, or its parts do not fit together.
        """
        with open_self_contained(path, FIX) as file:
            try:
                return _read(path, file)
            except DAMAGE as error:
                raise InputError(
                    f"{path} is no feature store ({collapsed(error)}): {FIX}"
                ) from None

    @cached_property
    def rows(self) -> dict[str, int]:
        """Each photo's row."""
        return {image_id: row for row, image_id in enumerate(self.image_ids)}

    def verify(self) -> str:
        """Read every vector and check it against its digest.

        Returns:
            The SHA-256 of all vectors' digests, in the rows' order.

        Raises:
            InputError: a row is not as it was written, holds a number that is none, or
                nothing but zeros; names the first photo.
        """
        whole = hashlib.sha256()
        for image_id, digest, vector in zip(
            self.image_ids, self.vector_digests, self.features, strict=True
        ):
            wrong = None
            if vector_sha256(vector) != digest:
                wrong = "is not as it was written"
            elif not np.isfinite(vector).all():
                wrong = "holds what is no number"
            elif not vector.any():
                wrong = "holds nothing but zeros"
            if wrong:
                raise InputError(f"{self.path}: the row of {image_id} {wrong}: {FIX}")
            whole.update(bytes.fromhex(digest))
        return whole.hexdigest()

    def read(self, image_ids: Iterable[str]) -> npt.NDArray[np.float32]:
        """Return the photos' vectors, (n, D) or (n, P, D): of several views their `join`."""
        vectors = self.features[[self.rows[i] for i in image_ids]].astype(np.float32)
        return vectors if self.encoding.view_count == 1 else join(vectors)

    def parts(
        self, image_ids: Sequence[str]
    ) -> Iterator[tuple[Sequence[str], npt.NDArray[np.float32]]]:
        """Yield image_ids, and what `read` has of them, few enough at a time for any memory."""
        for start in range(0, len(image_ids), _PART):
            part = image_ids[start : start + _PART]
            yield part, self.read(part)

    def draw(
        self, image_ids: Iterable[str], random: np.random.Generator
    ) -> npt.NDArray[np.float32]:
        """Return the vectors of one view of each photo, (n, D) or (n, P, D), drawn anew."""
        rows = [self.rows[i] for i in image_ids]
        if self.encoding.view_count == 1:
            return self.features[rows].astype(np.float32)
        views = random.integers(self.encoding.view_count, size=len(rows))
        return self.features[rows, views].astype(np.float32)


def _write_features(file: Any, count: int, dtype: str, rows: Iterable[VectorRows]) -> None:
    digests = [""] * count
    features = None
    for positions, vectors in rows:
        if features is None:
            features = file.create_dataset("features", (count, *vectors.shape[1:]), dtype)
        # h5py wants a selection's positions in rising order.
        order = np.argsort(positions)
        features[np.asarray(positions)[order]] = vectors[order]
        for position, vector in zip(positions, vectors, strict=True):
            if digests[position]:
                raise AssertionError("a row of the feature store was written twice")
            digests[position] = vector_sha256(vector)
    if not all(digests):
        raise AssertionError("a row of the feature store was left out")
    _write_strings(file, "vector_sha256", digests)


def _checked(rows: Iterable[VectorRows], disk: Disk) -> Iterator[VectorRows]:
    """Yield `rows` as long as the disk takes them."""
    for row in rows:
        yield row
        disk.check()


def vector_sha256(vector: npt.NDArray[Any]) -> str:
    """Digest one photo's vectors as they are stored."""
    return hashlib.sha256(np.ascontiguousarray(vector).tobytes()).hexdigest()


def _read(path: Path, file: Any) -> FeatureStore:
    version = file.attrs["format_version"]
    if version != FORMAT_VERSION:
        raise ValueError(f"format version {version}, not {FORMAT_VERSION}")
    encoding = FeatureSpec(**json.loads(read_attribute(file, "encoding")))
    ids = _read_strings(file["image_id"])
    photos = dict(zip(ids, _read_strings(file["photo_sha256"]), strict=True))
    if ids != sorted(photos):
        raise ValueError("its ids are not unique and sorted")
    if read_attribute(file, "fingerprint") != _fingerprint(encoding, photos):
        raise ValueError("its fingerprint does not fit its rows")
    features = file["features"]
    contiguous = features.id.get_offset() is not None
    if len(features) != len(ids) or features.dtype != encoding.dtype or not contiguous:
        raise ValueError("its features are not one contiguous row for each id")
    check_extent(features)
    views = encoding.view_count
    if views > 1 and features.shape[1:2] != (views,):
        raise ValueError(f"its features are not of {views} views a photo")
    reasons = _read_strings(file["failed/reason"])
    failed = dict(zip(_read_strings(file["failed/image_id"]), reasons, strict=True))
    digests = _read_strings(file["vector_sha256"])
    if len(digests) != len(ids):
        raise ValueError("its digests are not one for each id")
    return FeatureStore(
        path=path,
        encoding=encoding,
        fingerprint=_fingerprint(encoding, photos),
        image_ids=ids,
        failed=failed,
        shape=features.shape[1 if views == 1 else 2 :],
        vector_digests=digests,
        features=_mapped(file, features),
    )


def _mapped(file: Any, dataset: Any) -> npt.NDArray[Any]:
    """Map a contiguous dataset into memory.

    It is an array on disk; NumPy reads random rows of it many times faster than HDF5's
    selections do.
    """
    # The file that is open: by now another may have its name.
    with os.fdopen(os.dup(file.id.get_vfd_handle()), "rb") as raw:
        return np.memmap(
            raw, dataset.dtype, mode="r", offset=dataset.id.get_offset(), shape=dataset.shape
        )


def _fingerprint(encoding: FeatureSpec, photos: Mapping[str, str]) -> str:
    return fingerprint([encoding.fingerprint, sorted(photos.items())])


def _write_strings(file: Any, name: str, values: Sequence[str]) -> None:
    """Store strings at a fixed length: HDF5 keeps those in place, byte for byte."""
    encoded = [value.encode("utf-8") for value in values]
    length = max((len(value) for value in encoded), default=1)
    kind = h5py.string_dtype("utf-8", max(length, 1))
    file.create_dataset(name, data=np.array(encoded, dtype=kind))


def _read_strings(dataset: Any) -> list[str]:
    if dataset.dtype.kind != "S":
        raise ValueError(f"{dataset.name} holds no strings of fixed length")
    check_extent(dataset)
    return [value.decode("utf-8") for value in dataset[:].tolist()]
