"""The feature store: one HDF5 file, a row for every photo that could be encoded.

Layout (docs/formats.md): `features` (N, D) or (N, P, D), contiguous, float16 or float32;
`image_id` and `photo_sha256` (N,), rows sorted by id; `failed/image_id` and
`failed/reason` (F,); attributes say who made it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.features.encoders import Encoding
from pipeline.features.hdf5 import DAMAGE, one_line, open_self_contained
from pipeline.files import atomic_path, fingerprint

FORMAT_VERSION = 1
MEND = "run `dvc repro extract`"

Rows = tuple[list[int], npt.NDArray[Any]]


def write_store(
    path: Path,
    encoding: Encoding,
    photos: Mapping[str, str],
    failed: Mapping[str, str],
    shape: Sequence[int],
    rows: Iterable[Rows],
) -> str:
    """Write a feature store atomically: equal input, equal bytes.

    Args:
        path: the file to write.
        encoding: how the vectors were made.
        photos: image_id to the photo's sha256; its sorted ids are the rows.
        failed: image_id to the reason why there is no vector.
        shape: of one photo's vectors: (D,) or (P, D).
        rows: positions in the sorted ids with their vectors, any order; every position
            has to come exactly once.

    Returns:
        The store's fingerprint.
    """
    ids = sorted(photos)
    filled = np.zeros(len(ids), dtype=np.int64)
    with (
        atomic_path(path) as temporary,
        # The newest format would save nothing and shut out older readers.
        h5py.File(temporary, "w", libver=("earliest", "v110")) as file,
    ):
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["encoding"] = np.bytes_(json.dumps(asdict(encoding), sort_keys=True))
        file.attrs["fingerprint"] = np.bytes_(_fingerprint(encoding, photos))
        _write_strings(file, "image_id", ids)
        _write_strings(file, "photo_sha256", [photos[image_id] for image_id in ids])
        _write_strings(file, "failed/image_id", sorted(failed))
        _write_strings(file, "failed/reason", [failed[image_id] for image_id in sorted(failed)])
        features = file.create_dataset("features", (len(ids), *shape), encoding.dtype)
        for positions, vectors in rows:
            # h5py wants a selection's positions in rising order.
            order = np.argsort(positions)
            features[np.asarray(positions)[order]] = vectors[order]
            filled[positions] += 1
        if not (filled == 1).all():
            raise AssertionError("a row of the feature store was left out or written twice")
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
        shape: of one photo's vectors: (D,) or (P, D).
    """

    path: Path
    encoding: Encoding
    fingerprint: str
    image_ids: list[str]
    failed: dict[str, str]
    shape: tuple[int, ...]
    _offset: int

    @staticmethod
    def open(path: Path) -> "FeatureStore":
        """Open and check a store.

        Raises:
            InputError: the file is absent, damaged, of another version, not
                self-contained, or its parts do not fit together.
        """
        with open_self_contained(path, MEND) as file:
            try:
                return _read(path, file)
            except DAMAGE as error:
                raise InputError(
                    f"{path} is no feature store ({one_line(error)}): {MEND}"
                ) from None

    @cached_property
    def rows(self) -> dict[str, int]:
        """Each photo's row."""
        return {image_id: row for row, image_id in enumerate(self.image_ids)}

    @cached_property
    def features(self) -> npt.NDArray[Any]:
        """All vectors, (N, D) or (N, P, D), mapped into memory, not read."""
        # The one contiguous dataset is an array on disk; NumPy reads random rows of it
        # many times faster than HDF5's selections do.
        return np.memmap(
            self.path,
            dtype=self.encoding.dtype,
            mode="r",
            offset=self._offset,
            shape=(len(self.image_ids), *self.shape),
        )

    def read(self, image_ids: Iterable[str]) -> npt.NDArray[np.float32]:
        """Return the photos' vectors, (n, D) or (n, P, D)."""
        return self.features[[self.rows[i] for i in image_ids]].astype(np.float32)


def _read(path: Path, file: Any) -> FeatureStore:
    version = file.attrs["format_version"]
    if version != FORMAT_VERSION:
        raise ValueError(f"format version {version}, not {FORMAT_VERSION}")
    encoding = Encoding(**json.loads(_read_attribute(file, "encoding")))
    ids = _read_strings(file["image_id"])
    photos = dict(zip(ids, _read_strings(file["photo_sha256"]), strict=True))
    if ids != sorted(photos):
        raise ValueError("its ids are not unique and sorted")
    if _read_attribute(file, "fingerprint") != _fingerprint(encoding, photos):
        raise ValueError("its fingerprint does not fit its rows")
    features = file["features"]
    offset = features.id.get_offset()
    if len(features) != len(ids) or features.dtype != encoding.dtype or offset is None:
        raise ValueError("its features are not one contiguous row for each id")
    reasons = _read_strings(file["failed/reason"])
    failed = dict(zip(_read_strings(file["failed/image_id"]), reasons, strict=True))
    return FeatureStore(
        path, encoding, _fingerprint(encoding, photos), ids, failed, features.shape[1:], offset
    )


def _fingerprint(encoding: Encoding, photos: Mapping[str, str]) -> str:
    return fingerprint([encoding.fingerprint, sorted(photos.items())])


def _write_strings(file: Any, name: str, values: Sequence[str]) -> None:
    """Store strings at a fixed length: HDF5 keeps those in place, byte for byte."""
    encoded = [value.encode("utf-8") for value in values]
    length = max((len(value) for value in encoded), default=1)
    kind = h5py.string_dtype("utf-8", max(length, 1))
    file.create_dataset(name, data=np.array(encoded, dtype=kind))


# Strings of variable length, where damaged, can crash the HDF5 library: none are read.
def _read_attribute(file: Any, name: str) -> str:
    if file.attrs.get_id(name).dtype.kind != "S":
        raise ValueError(f"{name} is no string of fixed length")
    return str(file.attrs[name], "ascii")


def _read_strings(dataset: Any) -> list[str]:
    if dataset.dtype.kind != "S":
        raise ValueError(f"{dataset.name} holds no strings of fixed length")
    return [value.decode("utf-8") for value in dataset[:].tolist()]
