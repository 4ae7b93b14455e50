"""Extraction: from photos to a feature store; only photos not encoded before are encoded."""

import hashlib
import threading
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from pipeline.errors import InputError
from pipeline.features.decoding.photos import PhotoError, PhotoFile, read_photo
from pipeline.features.earlier_stores import DamagedRowError, EarlierStores, StoreRow, read_rows
from pipeline.features.executors.local import EncodeStats, available_cores, prefetch
from pipeline.features.feature_spec import FeatureSpec
from pipeline.features.shard_cache import (
    DamagedShardError,
    ShardCache,
    VectorLocation,
    read_vectors,
    remove_damaged_shards,
)
from pipeline.features.store import VectorRows, write_store
from pipeline.files import remove_temporary_files, sole_writer, write_json
from pipeline.progress import track
from pipeline.system import dvc_cache

# If shards are damaged right after they were written, the disk is broken: do not try for ever.
_ATTEMPTS = 3
# Photos to encode, up to this total size, stay in memory after their digest was computed, so
# that they are read from the disk once.
_BUFFER_BYTES = 1 << 28  # 256 MiB


class Executor(Protocol):
    """Runs photos through the encoder: `LocalExecutor` or `RayExecutor`."""

    def encode(
        self,
        photos: Mapping[str, PhotoFile],
        feature_spec: FeatureSpec,
        max_pixels: int,
        cache: ShardCache,
        status: str,
    ) -> EncodeStats:
        """Encode photos into the shard cache.

        Args:
            photos: sha256 to photo. An executor may use the bytes that are still in memory, and
                releases them, at the latest when the photo is decoded.
            feature_spec: how to encode them.
            max_pixels: photos with more pixels fail.
            cache: where the vectors are written.
            status: text shown with the progress.

        Raises:
            InputError: the vectors cannot be stored, see `store_batch`, or a worker failed.
            OSError: the disk is full.
        """


@dataclass
class ExtractionResult:
    """The outcome of an extraction.

    Attributes:
        photos: image_id to sha256, for every photo that has a vector.
        failed: image_id to the reason, for every photo that has none.
        cached: number of photos that an earlier run had encoded.
        stats: what the executor did; photos with the same bytes count once.
        fingerprint: fingerprint of the feature store.
    """

    photos: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    cached: int = 0
    stats: EncodeStats = field(default_factory=EncodeStats)
    fingerprint: str = ""


@dataclass(frozen=True)
class Extractor:
    """Extracts features.

    A vector comes from the shard cache, else from an earlier store, else from the encoder.

    Attributes:
        feature_spec: how photos are encoded; its fingerprint names the shard cache's folder.
        executor: runs the encoder; called only if there are photos to encode.
        cache: folder of the shard cache.
        max_pixels: photos with more pixels fail.
        max_failed_share: share of all photos; if more fail, no store is written. A single photo
            may always fail, unless this is 0.
        earlier_stores: feature stores that may have vectors of photos that the shard cache lacks.
    """

    feature_spec: FeatureSpec
    executor: Executor
    cache: Path
    max_pixels: int
    max_failed_share: float
    earlier_stores: Iterable[Path] = ()

    def extract(self, photos: Mapping[str, Path], root: Path, store: Path) -> ExtractionResult:
        """Encode the photos that are not in the shard cache, and write the feature store.

        If it is killed at any moment, the next call resumes after the last complete batch.

        Args:
            photos: image_id to file.
            root: the data set's folder. Each photo is in a folder below it; links that lead
                elsewhere are refused, see `_TrustedFolders`.
            store: the file to write.

        Raises:
            InputError: too many photos failed, the system failed, or another extraction is
                writing the same store.
        """
        cache = ShardCache(self.cache, self.feature_spec.fingerprint)
        with (
            sole_writer(store.parent, "extraction", f".{store.name}.lock", alternative=""),
            # An extraction in another checkout may fill the same cache: wait, to find its vectors.
            sole_writer(cache.folder, "extraction", wait=True),
        ):
            remove_temporary_files(cache.folder, "*")
            remove_temporary_files(store.parent, store.name)
            return self._extract_locked(photos, root, store, cache)

    def _extract_locked(
        self, photos: Mapping[str, Path], root: Path, store: Path, cache: ShardCache
    ) -> ExtractionResult:
        earlier = EarlierStores(self.earlier_stores, self.feature_spec.fingerprint)
        buffer = _PhotoBuffer(_BUFFER_BYTES, exclude=cache.index())
        result = ExtractionResult(*digest_photos(photos, root, buffer.add))
        for _ in range(_ATTEMPTS):
            vectors = self._encode_missing(photos, buffer, cache, earlier, result)
            self._check_failed_share(result)
            keys = [result.photos[image_id] for image_id in sorted(result.photos)]
            if not all(key in vectors for key in keys):
                continue  # shards that were just written are damaged already
            try:
                result.fingerprint = write_store(
                    store, self.feature_spec, result.photos, result.failed, vectors.read(keys)
                )
            except DamagedShardError:
                remove_damaged_shards(vectors.shards, keys)
            except DamagedRowError:
                earlier.drop_damaged(keys)
            else:
                self._failed_photos_file.unlink(missing_ok=True)
                return result
        raise InputError(
            f"{cache.folder} was found damaged {_ATTEMPTS} times: check that disk, "
            "or set runtime.cache in params.yaml to another folder"
        )

    def _encode_missing(
        self,
        photos: Mapping[str, Path],
        buffer: "_PhotoBuffer",
        cache: ShardCache,
        earlier: EarlierStores,
        result: ExtractionResult,
    ) -> "_Vectors":
        """Encode the photos that have no vector; return where all vectors are."""
        keys = set(result.photos.values())
        vectors = locate_vectors(keys, cache, earlier)
        missing = {
            sha: photos[image_id] for image_id, sha in result.photos.items() if sha not in vectors
        }
        # Photos encoded in an earlier attempt do not count: this run had to encode them.
        result.cached = (
            sum(sha in vectors for sha in result.photos.values()) - result.stats.computed
        )
        if not missing:
            return vectors
        files = {sha: PhotoFile(path, buffer.pop(sha)) for sha, path in missing.items()}
        status = f"{result.cached} cached, {len(result.failed)} failed"
        stats = self.executor.encode(files, self.feature_spec, self.max_pixels, cache, status)
        result.stats = result.stats.merge(stats)
        for image_id, sha in list(result.photos.items()):
            if sha in stats.failed:
                result.failed[image_id] = stats.failed[sha]
                del result.photos[image_id]
        return locate_vectors(keys, cache, earlier)

    @property
    def _failed_photos_file(self) -> Path:
        return self.cache / "failed_photos.json"

    def _check_failed_share(self, result: ExtractionResult) -> None:
        total = len(result.photos) + len(result.failed)
        allowed = max(self.max_failed_share * total, self.max_failed_share > 0)
        if len(result.failed) <= allowed and result.photos:
            return
        if not result.failed:
            raise InputError("there are no photos")
        image_id, reason = min(result.failed.items())
        write_json(self._failed_photos_file, result.failed)
        raise InputError(
            f"{len(result.failed)} of {total} photos failed, the first is {image_id}: "
            f"{reason}; all are in {self._failed_photos_file}: fix them, or raise "
            "extract.max_failed_share in params.yaml (finished work is kept)"
        )


@dataclass(frozen=True)
class _Vectors:
    """Where the photos' vectors are, by their sha256: in shards and in earlier stores."""

    shards: Mapping[str, VectorLocation]
    rows: Mapping[str, StoreRow]

    def __contains__(self, sha: str) -> bool:
        return sha in self.shards or sha in self.rows

    def read(self, keys: list[str]) -> Iterator[VectorRows]:
        """Yield positions in `keys` and their vectors, each position once."""
        yield from read_vectors(self.shards, keys)
        yield from read_rows(self.rows, keys)


def locate_vectors(
    keys: Collection[str], cache: ShardCache, earlier: EarlierStores, *, remove_damaged: bool = True
) -> _Vectors:
    """Return where the vectors of the photos `keys` are; earlier stores only for the remainder.

    Args:
        keys: sha256 of the photos.
        cache: the shard cache.
        earlier: stores to look into where the shard cache lacks photos.
        remove_damaged: see `ShardCache.index`.
    """
    shards = cache.index(remove_damaged=remove_damaged)
    return _Vectors(shards, earlier.locate([key for key in keys if key not in shards]))


class _PhotoBuffer:
    """The bytes of photos, kept in memory from their digest to their decoding.

    Its size is limited: photos that do not fit are read from their files again.
    """

    def __init__(self, size: int, exclude: Container[str]) -> None:
        """Keep at most `size` bytes, and no photos whose sha256 is in `exclude`."""
        self._free = size
        self._exclude = exclude
        self._data: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def add(self, sha: str, data: bytes) -> None:
        """Keep a photo's bytes if they fit; called from several threads."""
        with self._lock:
            if sha in self._exclude or sha in self._data or len(data) > self._free:
                return
            self._free -= len(data)
            self._data[sha] = data

    def pop(self, sha: str) -> bytes | None:
        """Hand over a photo's bytes; None if they are not kept."""
        return self._data.pop(sha, None)


def digest_photos(
    photos: Mapping[str, Path], root: Path, on_read: Callable[[str, bytes], None] | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """Read every photo and digest its bytes.

    Args:
        photos: image_id to file.
        root: see `Extractor.extract`.
        on_read: called with each photo's sha256 and bytes, from several threads.

    Returns:
        image_id to sha256, for the photos that can be read; and image_id to the reason, for
        the others.

    Raises:
        InputError: the system fails, see `read_photo`.
    """
    digests: dict[str, str] = {}
    failed: dict[str, str] = {}

    folders = _TrustedFolders(root)

    def digest(_: str, path: Path) -> str | PhotoError:
        try:
            data = read_photo(path, folders.folder_of(path))
        except PhotoError as error:
            return error
        sha = hashlib.sha256(data).hexdigest()
        if on_read is not None:
            on_read(sha, data)
        return sha

    with ThreadPoolExecutor(available_cores()) as pool:
        results = prefetch(pool, digest, photos.items(), depth=64)
        for (image_id, _), result in track(results, "read", len(photos), "photos"):
            if isinstance(result, PhotoError):
                failed[image_id] = str(result)
            else:
                digests[image_id] = result
    return digests, failed


class _TrustedFolders:
    """Decides which folder a photo has to be in: links may come from a stranger's archive.

    A link may lead to another file of the data set, or into DVC's cache, which DVC links files to
    where `cache.type` says so. Any other link out of a photo's folder is refused.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._resolve = lru_cache(Path.resolve)  # of the few folders

    def folder_of(self, path: Path) -> Path:
        """Return the folder that the photo at `path` has to be in after links are followed."""
        parts = path.relative_to(self._root).parts
        # The folder directly below the root may itself be a link, for example to a larger disk.
        folder = self._root / parts[0] if len(parts) > 1 else self._root
        try:
            target = path.resolve()
        except (OSError, ValueError, RuntimeError):  # `read_photo` says what is wrong
            return folder
        for trusted in (folder, self._root):
            if target.is_relative_to(self._resolve(trusted)):
                return trusted
        return target.parent if dvc_cache.is_object(target) else folder
