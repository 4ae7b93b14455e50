"""Extraction: photos in, feature store out; only photos never seen before are computed."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pipeline.errors import InputError
from pipeline.features.executors.local import EncodeStats, ahead, cores
from pipeline.features.feature_spec import FeatureSpec
from pipeline.features.photos import PhotoError, read_photo
from pipeline.features.shard_cache import (
    DamagedShardError,
    Place,
    ShardFolder,
    drop_damaged,
    gather,
)
from pipeline.features.store import write_store
from pipeline.files import remove_temporary_files, sole_writer

# A disk that damages what was just written to it will do so again.
_ROUNDS = 3


class Executor(Protocol):
    """What puts photos through the encoder: `LocalExecutor`, or a cluster's."""

    def encode(
        self,
        photos: Mapping[str, Path],
        encoding: FeatureSpec,
        max_pixels: int,
        shards: ShardFolder,
        note: str,
    ) -> EncodeStats:
        """Encode `photos` (sha256 to file) into `shards`; show `note` beside the progress."""


@dataclass
class ExtractionResult:
    """What an extraction did.

    Attributes:
        photos: image_id to sha256 of every photo that has a vector.
        failed: image_id to the reason of every photo that has none.
        known: photos whose vectors an earlier run had computed.
        encoded: what the encoder did, of photos with the same bytes once.
        fingerprint: of the feature store written.
    """

    photos: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    known: int = 0
    encoded: EncodeStats = field(default_factory=EncodeStats)
    fingerprint: str = ""


@dataclass(frozen=True)
class Extractor:
    """Extracts features.

    Attributes:
        encoding: how vectors are made; its fingerprint names the folder of shards.
        executor: runs the encoder; called only if a photo needs it.
        cache: the folder that shards are kept in.
        max_pixels: photos of more are refused.
        max_failed_share: of all photos; if more fail, no store is written. A single one may,
            unless this is 0.
    """

    encoding: FeatureSpec
    executor: Executor
    cache: Path
    max_pixels: int
    max_failed_share: float

    def extract(self, photos: Mapping[str, Path], root: Path, store: Path) -> ExtractionResult:
        """Encode what is new among `photos` and write the feature store.

        Killed at any moment, the next call goes on after the last whole batch.

        Args:
            photos: image_id to file.
            root: the data set's folder. Links out of the folder in it that holds a photo are
                refused; that folder may itself be a link, to a larger disk say.
            store: the file to write.

        Raises:
            InputError: too many photos failed, or another extraction is running.
        """
        shards = ShardFolder(self.cache, self.encoding.fingerprint)
        with (
            sole_writer(shards.folder, "extraction"),
            # Another encoding, or another cache, could be on its way into the same file.
            sole_writer(store.parent, "extraction", f".{store.name}.lock", alternative=""),
        ):
            remove_temporary_files(shards.folder, "*")
            remove_temporary_files(store.parent, store.name)
            found, failed = digest_photos(photos, root)
            result = ExtractionResult(found, failed)
            for _ in range(_ROUNDS):
                places = self._encode_new(photos, shards, result)
                self._check_share(result)
                keys = [result.photos[image_id] for image_id in sorted(result.photos)]
                if not all(key in places for key in keys):
                    continue  # what was just written is damaged already
                try:
                    result.fingerprint = write_store(
                        store, self.encoding, result.photos, result.failed, gather(places, keys)
                    )
                except DamagedShardError:
                    drop_damaged(places, keys)
                else:
                    return result
        raise InputError(
            f"{shards.folder} was found damaged {_ROUNDS} times: look after that disk, "
            "or set runtime.cache in params.yaml to another folder"
        )

    def _encode_new(
        self, photos: Mapping[str, Path], shards: ShardFolder, result: ExtractionResult
    ) -> dict[str, Place]:
        """Encode what no shard has; return where every vector is."""
        places = shards.index()
        new = {
            sha: photos[image_id] for image_id, sha in result.photos.items() if sha not in places
        }
        # Of all rounds together: what was damaged has to be computed again.
        result.known = (
            sum(sha in places for sha in result.photos.values()) - result.encoded.computed
        )
        if not new:
            return places
        note = f"{result.known} cached, {len(result.failed)} failed"
        encoded = self.executor.encode(new, self.encoding, self.max_pixels, shards, note)
        result.encoded = result.encoded.merge(encoded)
        reasons = encoded.failed
        for image_id, sha in list(result.photos.items()):
            if sha in reasons:
                result.failed[image_id] = reasons[sha]
                del result.photos[image_id]
        return shards.index()

    def _check_share(self, result: ExtractionResult) -> None:
        total = len(result.photos) + len(result.failed)
        allowed = max(self.max_failed_share * total, self.max_failed_share > 0)
        if len(result.failed) > allowed or not result.photos:
            image_id, reason = next(iter(sorted(result.failed.items())), ("none", "no photos"))
            raise InputError(
                f"{len(result.failed)} of {total} photos cannot be used, the first {image_id}: "
                f"{reason}; mend them, or raise extract.max_failed_share in params.yaml "
                "(what was computed is kept)"
            )


def digest_photos(photos: Mapping[str, Path], root: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Read every photo; return the sha256 of those that can be, and why the others cannot.

    Args:
        photos: image_id to file.
        root: see `Extractor.extract`.
    """
    found: dict[str, str] = {}
    failed: dict[str, str] = {}

    def digest(_: str, path: Path) -> str | PhotoError:
        try:
            return hashlib.sha256(read_photo(path, _photo_folder(path, root))).hexdigest()
        except PhotoError as error:
            return error

    with ThreadPoolExecutor(cores()) as pool:
        for (image_id, _), outcome in ahead(pool, digest, photos.items(), depth=64):
            if isinstance(outcome, PhotoError):
                failed[image_id] = str(outcome)
            else:
                found[image_id] = outcome
    return found, failed


def _photo_folder(path: Path, root: Path) -> Path:
    """Return the folder directly below `root` that holds the photo, or `root` itself."""
    parts = path.relative_to(root).parts
    return root / parts[0] if len(parts) > 1 else root
