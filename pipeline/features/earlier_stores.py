"""Earlier stores: feature stores that are there already serve as a source of vectors.

A clone, another worktree or an experiment has no shards of the photos that were encoded
elsewhere, but DVC brought their feature store.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from pipeline.errors import InputError
from pipeline.features.store import FeatureStore, VectorRows, vector_sha256

_CHUNK = 256  # rows that are in memory at once

StoreRow = tuple[FeatureStore, int]  # a store and a row of it


class DamagedRowError(Exception):
    """A row of an earlier store is not as it was written."""


class EarlierStores:
    """The rows of feature stores of one `FeatureSpec`, by their photo's sha256."""

    def __init__(self, paths: Iterable[Path], spec_fingerprint: str) -> None:
        """Choose the files; none is opened, nor `paths` read, before a vector is needed."""
        self._paths = iter(paths)
        self._spec_fingerprint = spec_fingerprint
        self._rows: dict[str, StoreRow] = {}

    def locate(self, keys: Collection[str]) -> dict[str, StoreRow]:
        """Return the rows of those photos that a store has; `read_rows` checks their vectors."""
        while not all(key in self._rows for key in keys):
            path = next(self._paths, None)
            if path is None:
                break
            self._add(path)
        return {key: self._rows[key] for key in keys if key in self._rows}

    def drop_damaged(self, keys: Iterable[str]) -> None:
        """Forget each row for which `read_rows` would raise `DamagedRowError`."""
        damaged = [key for key in keys if key in self._rows and not _is_sound(*self._rows[key])]
        for key in damaged:
            path = self._rows.pop(key)[0].path
            print(f"a row of {path} is not as it was written; its photo is encoded again")

    def _add(self, path: Path) -> None:
        try:
            store = FeatureStore.open(path)
        except InputError:  # of another version, or damaged: it is no source
            return
        if store.feature_spec.fingerprint == self._spec_fingerprint:
            rows = {key: (store, row) for row, key in enumerate(store.photo_digests)}
            self._rows = rows | self._rows


def read_rows(rows: Mapping[str, StoreRow], keys: list[str]) -> Iterator[VectorRows]:
    """Read the vectors of `keys`, in chunks; yield positions in `keys` and their vectors.

    Keys without a row are skipped.

    Raises:
        DamagedRowError: a row is not as it was written.
    """
    positions = [position for position, key in enumerate(keys) if key in rows]
    for start in range(0, len(positions), _CHUNK):
        chunk = positions[start : start + _CHUNK]
        located = [rows[keys[position]] for position in chunk]
        if not all(_is_sound(store, row) for store, row in located):
            raise DamagedRowError
        yield chunk, np.stack([store.features[row] for store, row in located])


def _is_sound(store: FeatureStore, row: int) -> bool:
    vector = store.features[row]
    return (
        vector_sha256(vector) == store.vector_digests[row]
        and bool(np.isfinite(vector).all())
        and bool(vector.any())
    )
