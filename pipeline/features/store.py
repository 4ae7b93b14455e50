"""The feature store: one HDF5 file with a row for every photo that could be encoded.

Layout (docs/artefacts.md): `features`, contiguous, float16 or float32, of shape (N, D) or
(N, P, D), or with several views per photo (N, V, D) or (N, V, P, D); `image_id`,
`photo_sha256` and `vector_sha256` (N,), rows sorted by id; `failed/image_id` and
`failed/reason` (F,); the attributes `format_version`, `feature_spec` and `fingerprint`.
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

from pipeline.errors import InputError, collapsed_message
from pipeline.features.decoding.views import merge_views
from pipeline.features.feature_spec import FeatureSpec, read_feature_spec
from pipeline.files import atomic_path, fingerprint, raise_system_error
from pipeline.storage.hdf5 import (
    CORRUPTION_ERRORS,
    DeferredErrorFile,
    check_dataset,
    create_file,
    create_group,
    open_self_contained,
    read_integer_attribute,
    read_text_attribute,
)

FORMAT_VERSION = 6
FIX = "run `dvc repro extract`"
_CHUNK = 256  # photos; with a grid of Xception at two scales, each has 1.1 MB

_FLOAT16_VALUES = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)

VectorRows = tuple[list[int], npt.NDArray[Any]]


def write_store(
    path: Path,
    feature_spec: FeatureSpec,
    photos: Mapping[str, str],
    failed: Mapping[str, str],
    rows: Iterable[VectorRows],
) -> str:
    """Write a feature store atomically; equal input gives equal bytes.

    Args:
        path: the file to write.
        feature_spec: how the photos were encoded.
        photos: image_id to the photo's sha256; the rows are in the order of the sorted ids.
        failed: image_id to the reason why there is no vector.
        rows: positions in the sorted ids and their vectors, as in the layout, in any order;
            every position must occur exactly once.

    Returns:
        The store's fingerprint.

    Raises:
        OSError: the disk is full or fails; `path` is left as it was.
    """
    ids = sorted(photos)
    with atomic_path(path) as temporary, create_file(temporary) as (file, output):
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["feature_spec"] = np.bytes_(json.dumps(asdict(feature_spec), sort_keys=True))
        file.attrs["fingerprint"] = np.bytes_(_fingerprint(feature_spec, photos))
        _write_strings(file, "image_id", ids)
        _write_strings(file, "photo_sha256", [photos[image_id] for image_id in ids])
        create_group(file, "failed")
        _write_strings(file, "failed/image_id", sorted(failed))
        _write_strings(file, "failed/reason", [failed[image_id] for image_id in sorted(failed)])
        _write_features(file, len(ids), feature_spec.dtype, _stop_on_error(rows, output))
    return _fingerprint(feature_spec, photos)


@dataclass(frozen=True)
class FeatureStore:
    """A feature store opened for reading; vectors stay on disk until they are read.

    Attributes:
        path: the file.
        feature_spec: how the photos were encoded.
        fingerprint: fingerprint of the feature spec and of every photo's content.
        image_ids: the ids of the rows, sorted.
        photo_digests: the `photo_sha256` of the rows.
        failed: image_id to the reason why there is no vector.
        shape: shape of one view's vectors: (D,) or (P, D).
        vector_digests: the `vector_sha256` of the rows.
        features: all vectors, as in the layout, memory-mapped. They remain valid when the file
            is replaced.
    """

    path: Path
    feature_spec: FeatureSpec
    fingerprint: str
    image_ids: list[str]
    photo_digests: list[str]
    failed: dict[str, str]
    shape: tuple[int, ...]
    vector_digests: list[str]
    features: npt.NDArray[Any] = field(repr=False, compare=False)

    @staticmethod
    def open(path: Path) -> "FeatureStore":
        """Open and check a store.

        Raises:
            InputError: the file is absent, damaged, of another version, not
                self-contained, or inconsistent.
        """
        with open_self_contained(path, FIX) as file:
            try:
                return _read(path, file)
            except CORRUPTION_ERRORS as error:
                raise_system_error(error, path)
                raise InputError(
                    f"{path} is not a valid feature store ({collapsed_message(error)}): {FIX}"
                ) from None

    @cached_property
    def rows(self) -> dict[str, int]:
        """The row of each image_id."""
        return {image_id: row for row, image_id in enumerate(self.image_ids)}

    def verify(self) -> str:
        """Read every vector and check it against its digest.

        Returns:
            The SHA-256 of all vectors' digests, in the order of the rows.

        Raises:
            InputError: a row is not as it was written, is not finite, or is all zeros; the
                message names the first such photo.
        """
        total = hashlib.sha256()
        for image_id, digest, vector in zip(
            self.image_ids, self.vector_digests, self.features, strict=True
        ):
            problem = None
            if vector_sha256(vector) != digest:
                problem = "is not as it was written"
            elif not np.isfinite(vector).all():
                problem = "has NaN or infinite numbers"
            elif not vector.any():
                problem = "is all zeros"
            if problem:
                raise InputError(f"{self.path}: the row of {image_id} {problem}: {FIX}")
            total.update(bytes.fromhex(digest))
        return total.hexdigest()

    def read(self, image_ids: Iterable[str]) -> npt.NDArray[np.float32]:
        """Return the photos' vectors, (n, D) or (n, P, D), their views merged (`merge_views`)."""
        vectors = _to_float32(self.features[[self.rows[i] for i in image_ids]])
        return vectors if self.feature_spec.view_count == 1 else merge_views(vectors)

    def read_chunks(
        self, image_ids: Sequence[str]
    ) -> Iterator[tuple[Sequence[str], npt.NDArray[np.float32]]]:
        """Yield chunks of `image_ids` and their vectors, small enough for any memory."""
        for start in range(0, len(image_ids), _CHUNK):
            chunk = image_ids[start : start + _CHUNK]
            yield chunk, self.read(chunk)

    def sample_views(
        self, image_ids: Iterable[str], random: np.random.Generator
    ) -> npt.NDArray[np.float32]:
        """Return the vectors of one randomly chosen view of each photo, (n, D) or (n, P, D)."""
        rows = [self.rows[i] for i in image_ids]
        if self.feature_spec.view_count == 1:
            return _to_float32(self.features[rows])
        views = random.integers(self.feature_spec.view_count, size=len(rows))
        return _to_float32(self.features[rows, views])


def _to_float32(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Convert photos' vectors; `astype` takes four times as long for float16 with many zeros."""
    if vectors.dtype != np.float16:
        return vectors.astype(np.float32)
    result = np.empty(vectors.shape, np.float32)
    # One photo at a time: NumPy makes indices of eight bytes of them.
    for row, positions in zip(result, vectors.view(np.uint16), strict=True):
        _FLOAT16_VALUES.take(positions, out=row, mode="wrap")  # faster than "raise"
    return result


def _write_features(file: Any, count: int, dtype: str, rows: Iterable[VectorRows]) -> None:
    digests = [""] * count
    features = None
    for positions, vectors in rows:
        if features is None:
            features = file.create_dataset("features", (count, *vectors.shape[1:]), dtype)
        # h5py requires the positions of a selection in ascending order.
        order = np.argsort(positions)
        features[np.asarray(positions)[order]] = vectors[order]
        for position, vector in zip(positions, vectors, strict=True):
            if digests[position]:
                raise AssertionError("a row of the feature store was written twice")
            digests[position] = vector_sha256(vector)
    if not all(digests):
        raise AssertionError("a row of the feature store was left out")
    _write_strings(file, "vector_sha256", digests)


def _stop_on_error(rows: Iterable[VectorRows], output: DeferredErrorFile) -> Iterator[VectorRows]:
    """Yield `rows` until writing to `output` fails."""
    for row in rows:
        yield row
        output.check()


def vector_sha256(vector: npt.NDArray[Any]) -> str:
    """Digest one photo's vectors, as they are stored."""
    return hashlib.sha256(np.ascontiguousarray(vector).tobytes()).hexdigest()


def _read(path: Path, file: Any) -> FeatureStore:
    version = read_integer_attribute(file, "format_version")
    if version != FORMAT_VERSION:
        raise ValueError(f"format version {version}, not {FORMAT_VERSION}")
    feature_spec = read_feature_spec(json.loads(read_text_attribute(file, "feature_spec")))
    ids = _read_strings(file["image_id"])
    photos = dict(zip(ids, _read_strings(file["photo_sha256"]), strict=True))
    if ids != sorted(photos):
        raise ValueError("its ids are not unique and sorted")
    if read_text_attribute(file, "fingerprint") != _fingerprint(feature_spec, photos):
        raise ValueError("its fingerprint does not match its rows")
    features = file["features"]
    contiguous = features.id.get_offset() is not None
    if len(features) != len(ids) or features.dtype != feature_spec.dtype or not contiguous:
        raise ValueError("its features are not one contiguous row per id")
    check_dataset(features, "f")
    views = feature_spec.view_count
    if views > 1 and features.shape[1:2] != (views,):
        raise ValueError(f"its features do not have {views} views per photo")
    reasons = _read_strings(file["failed/reason"])
    failed = dict(zip(_read_strings(file["failed/image_id"]), reasons, strict=True))
    digests = _read_strings(file["vector_sha256"])
    if len(digests) != len(ids):
        raise ValueError("it does not have one digest per id")
    return FeatureStore(
        path=path,
        feature_spec=feature_spec,
        fingerprint=_fingerprint(feature_spec, photos),
        image_ids=ids,
        photo_digests=[photos[image_id] for image_id in ids],
        failed=failed,
        shape=features.shape[1 if views == 1 else 2 :],
        vector_digests=digests,
        features=_memory_map(file, features),
    )


def _memory_map(file: Any, dataset: Any) -> npt.NDArray[Any]:
    """Memory-map a contiguous dataset.

    NumPy reads random rows of it many times faster than HDF5's selections do.
    """
    # Map the open file: by now, another file may have its name.
    with os.fdopen(os.dup(file.id.get_vfd_handle()), "rb") as raw:
        return np.memmap(
            raw, dataset.dtype, mode="r", offset=dataset.id.get_offset(), shape=dataset.shape
        )


def _fingerprint(feature_spec: FeatureSpec, photos: Mapping[str, str]) -> str:
    return fingerprint([feature_spec.fingerprint, sorted(photos.items())])


def _write_strings(file: Any, name: str, values: Sequence[str]) -> None:
    """Store strings with a fixed length: HDF5 stores those in place, byte for byte."""
    encoded = [value.encode("utf-8") for value in values]
    length = max((len(value) for value in encoded), default=1)
    dtype = h5py.string_dtype("utf-8", max(length, 1))
    file.create_dataset(name, data=np.array(encoded, dtype=dtype))


def _read_strings(dataset: Any) -> list[str]:
    check_dataset(dataset, "S")  # one of variable length, if damaged, crashes HDF5
    if dataset.ndim != 1:
        raise ValueError(f"{dataset.name} is not a list")
    return [value.decode("utf-8") for value in dataset[:].tolist()]
