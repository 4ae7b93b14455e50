"""Extraction: photos in, feature store out; only photos never seen before are computed."""

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.features.encoders import Encoding
from pipeline.features.engines import Engine
from pipeline.features.photos import PhotoError, decode, read_photo
from pipeline.features.shards import ShardFolder, gather
from pipeline.features.store import write_store
from pipeline.files import sole_writer
from pipeline.progress import Progress

Pixels = npt.NDArray[np.uint8]


@dataclass
class Extraction:
    """What an extraction did.

    Attributes:
        photos: image_id to sha256 of every photo that has a vector.
        failed: image_id to the reason of every photo that has none.
        known: photos whose vectors an earlier run had computed.
        computed: contents that went through the encoder just now.
        passes: batches that the encoder ran.
        seconds: the encoder's time, and the time it waited for photos.
        fingerprint: of the feature store written.
    """

    photos: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    known: int = 0
    computed: int = 0
    passes: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"encoding": 0.0, "waiting": 0.0})
    fingerprint: str = ""


@dataclass(frozen=True)
class Extractor:
    """Extracts features.

    Attributes:
        encoding: how vectors are made; its fingerprint names the folder of shards.
        make_engine: builds the inference engine; called only if a photo needs it.
        cache: the folder that shards are kept in.
        max_pixels: photos of more are refused.
        max_failed_share: of all photos; if more fail, no store is written.
        workers: threads that read and decode.
        progress_seconds: see `Progress`.
    """

    encoding: Encoding
    make_engine: Callable[[], Engine]
    cache: Path
    max_pixels: int
    max_failed_share: float
    workers: int
    progress_seconds: float

    def extract(self, photos: Mapping[str, Path], root: Path, store: Path) -> Extraction:
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
        result = Extraction()
        with sole_writer(shards.folder, "extraction"):
            places = shards.index()
            self._digest(photos, root, result)
            new = {sha: photos[image_id] for image_id, sha in result.photos.items()}
            new = {sha: path for sha, path in new.items() if sha not in places}
            result.known = sum(sha in places for sha in result.photos.values())
            reasons = self._compute(new, shards, result)
            for image_id, sha in list(result.photos.items()):
                if sha in reasons:
                    result.failed[image_id] = reasons[sha]
                    del result.photos[image_id]
            self._check_share(result)
            if new:
                places = shards.index()
            result.fingerprint = self._assemble(result, places, store)
        return result

    def _digest(self, photos: Mapping[str, Path], root: Path, result: Extraction) -> None:
        """Sort photos into readable ones, with their digest, and failed ones."""

        def digest(path: Path) -> str | PhotoError:
            try:
                return hashlib.sha256(read_photo(path, _photo_folder(path, root))).hexdigest()
            except PhotoError as error:
                return error

        with ThreadPoolExecutor(self.workers) as pool:
            for image_id, outcome in zip(photos, pool.map(digest, photos.values()), strict=True):
                if isinstance(outcome, PhotoError):
                    result.failed[image_id] = str(outcome)
                else:
                    result.photos[image_id] = outcome

    def _compute(
        self, new: Mapping[str, Path], shards: ShardFolder, result: Extraction
    ) -> dict[str, str]:
        """Encode the photos `new` (sha256 to file); return why some could not be decoded."""
        if not new:
            return {}
        reasons: dict[str, str] = {}
        engine = self.make_engine()
        with (
            ThreadPoolExecutor(self.workers) as pool,
            Progress("extract", len(new), "photos", self.progress_seconds) as progress,
        ):
            decoded = _ahead(pool, self._decode, new.items(), 2 * engine.batch_size)
            for batch in _batches(decoded, engine.batch_size, reasons, result.seconds):
                start = time.monotonic()
                vectors = engine.encode(np.stack([pixels for _, pixels in batch]))
                shards.add([sha for sha, _ in batch], self._as_stored(vectors))
                result.seconds["encoding"] += time.monotonic() - start
                result.computed += len(batch)
                progress.advance(len(batch))
        result.passes = engine.passes
        return reasons

    def _as_stored(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        with np.errstate(over="ignore"):
            stored = vectors.astype(self.encoding.dtype)
        if not np.isfinite(stored).all():
            raise InputError(
                f"{self.encoding.encoder} gives numbers that {self.encoding.dtype} cannot hold: "
                "set extract.dtype in params.yaml to float32, or take other encoder.weights"
            )
        return stored

    def _decode(self, item: tuple[str, Path]) -> tuple[str, Pixels | PhotoError]:
        sha, path = item
        try:
            data = read_photo(path)
            if hashlib.sha256(data).hexdigest() != sha:
                raise PhotoError("changed while it was being read")
            return sha, decode(data, self.encoding.input_size, self.max_pixels)
        except PhotoError as error:
            return sha, error

    def _check_share(self, result: Extraction) -> None:
        total = len(result.photos) + len(result.failed)
        if len(result.failed) > self.max_failed_share * total or not result.photos:
            image_id, reason = next(iter(sorted(result.failed.items())), ("none", "no photos"))
            raise InputError(
                f"{len(result.failed)} of {total} photos cannot be used, the first {image_id}: "
                f"{reason}; mend them, or raise extract.max_failed_share in params.yaml "
                "(what was computed is kept)"
            )

    def _assemble(
        self, result: Extraction, places: Mapping[str, tuple[Path, int]], store: Path
    ) -> str:
        keys = [result.photos[image_id] for image_id in sorted(result.photos)]
        _, sample = ShardFolder.read(places[keys[0]][0])
        return write_store(
            store,
            self.encoding,
            result.photos,
            result.failed,
            sample.shape[1:],
            gather(places, keys),
        )


def _photo_folder(path: Path, root: Path) -> Path:
    """Return the folder directly below `root` that holds the photo, or `root` itself."""
    parts = path.relative_to(root).parts
    return root / parts[0] if len(parts) > 1 else root


def _ahead(
    pool: ThreadPoolExecutor, work: Callable[[Any], Any], items: Iterable[Any], depth: int
) -> Iterator[Any]:
    """Map `work` over `items` in order, at most `depth` results ahead of the consumer."""
    waiting: deque[Future[Any]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) >= depth:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _batches(
    decoded: Iterator[tuple[str, Pixels | PhotoError]],
    size: int,
    reasons: dict[str, str],
    seconds: dict[str, float],
) -> Iterator[list[tuple[str, Pixels]]]:
    """Group decoded photos by `size`; note the others' reasons and the time spent waiting."""
    batch: list[tuple[str, Pixels]] = []
    start = time.monotonic()
    for sha, outcome in decoded:
        if isinstance(outcome, PhotoError):
            reasons[sha] = str(outcome)
            continue
        batch.append((sha, outcome))
        if len(batch) == size:
            seconds["waiting"] += time.monotonic() - start
            yield batch
            batch = []
            start = time.monotonic()
    seconds["waiting"] += time.monotonic() - start
    if batch:
        yield batch
