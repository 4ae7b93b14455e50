"""The caption table: one row per caption, in a Parquet file with a fingerprint of its contents."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.datasets.splits import SPLITS
from pipeline.errors import InputError, collapsed_message
from pipeline.files import atomic_path, check_regular, raise_system_error

FORMAT_VERSION = 1
METADATA_KEY = b"caption_pipeline"
SCHEMA = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in (
            ("image_id", pa.string()),
            ("split", pa.string()),
            ("caption_index", pa.int32()),
            ("raw", pa.string()),
            ("text", pa.string()),
            ("n_words", pa.int32()),
        )
    ]
)
_BATCH = 1000  # rows
# Parquet makes captions three to ten times smaller.
_MAX_EXPANSION, _MIN_MEMORY = 100, 1 << 26
_FIX = "run `dvc repro clean`"


@dataclass(frozen=True, eq=False)
class CaptionTable:
    """A validated caption table.

    Attributes:
        frame: columns image_id, split (train, dev or test), caption_index (from 0), raw (as
            written), text (clean words joined by spaces) and n_words; sorted by image_id
            and caption_index.
        provenance: how the table was made, with its format_version and fingerprint.
    """

    frame: pd.DataFrame
    provenance: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the contents, in hexadecimal."""
        return str(self.provenance["fingerprint"])

    def texts(self, split: str) -> list[str]:
        """Return the clean captions of a split, in table order."""
        return list(self._split_rows(split)["text"])

    def captions(self, split: str) -> list[tuple[str, str]]:
        """Return (image_id, clean caption) pairs of a split, in table order."""
        rows = self._split_rows(split)
        return list(zip(rows["image_id"], rows["text"], strict=True))

    def references(self, split: str) -> dict[str, list[str]]:
        """Return image_id -> raw captions of a split: ids sorted, captions by index."""
        rows = self._split_rows(split)
        references: dict[str, list[str]] = {}
        for image_id, raw in zip(rows["image_id"], rows["raw"], strict=True):
            references.setdefault(image_id, []).append(raw)
        return references

    def _split_rows(self, split: str) -> pd.DataFrame:
        return self.frame[self.frame["split"] == split]


def write_caption_table(path: Path, frame: pd.DataFrame, provenance: dict[str, Any]) -> None:
    """Write captions as Parquet, atomically; the same input gives the same bytes.

    Args:
        path: the file to write.
        frame: the six columns of `SCHEMA`, with rows in any order.
        provenance: JSON-serialisable facts about how the table was made, stored with the
            format version and the contents' fingerprint.

    Raises:
        ValueError: the frame breaks a rule of the table.
    """
    frame = frame[SCHEMA.names].sort_values(["image_id", "caption_index"], ignore_index=True)
    violation = _first_violation(frame)
    if violation is not None:
        raise ValueError(violation)
    stored = provenance | {
        "format_version": FORMAT_VERSION,
        "fingerprint": _table_fingerprint(frame),
    }
    metadata = {METADATA_KEY: json.dumps(stored, sort_keys=True).encode()}
    # The metadata of pandas would write its version into the file, so it is replaced.
    table = pa.Table.from_pandas(frame, schema=SCHEMA, preserve_index=False)
    with atomic_path(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary)


def read_caption_table(path: Path) -> CaptionTable:
    """Read a table and check its schema, version, rules and fingerprint.

    Raises:
        InputError: the file is missing, damaged or of another version.
    """
    check_regular(path, _FIX)
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            if not schema.equals(SCHEMA):
                raise InputError(f"{path} does not have the columns of a caption table: {_FIX}")
            provenance = _read_provenance(path, schema.metadata or {})
            table = _read_bounded(file, path.stat().st_size)
        table.validate(full=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise_system_error(error, path)
        reason = collapsed_message(error)[:200]
        raise InputError(f"{path} cannot be read as Parquet ({reason}): {_FIX}") from None
    frame: pd.DataFrame = table.to_pandas()
    violation = _first_violation(frame)
    if violation is not None:
        raise InputError(f"{path}: {violation}: {_FIX}")
    if _table_fingerprint(frame) != provenance.get("fingerprint"):
        raise InputError(f"{path} does not match its own fingerprint: {_FIX}")
    return CaptionTable(frame, provenance)


def _read_bounded(file: pq.ParquetFile, file_size: int) -> pa.Table:
    """Read a table in batches: a small file can say that it holds one text a billion times.

    Raises:
        ValueError: the rows take far more memory than captions in such a file can.
    """
    batches, size = [], 0
    for batch in file.iter_batches(_BATCH):
        size += batch.nbytes
        if size > _MAX_EXPANSION * file_size + _MIN_MEMORY:
            raise ValueError("its rows are larger than those of captions")
        batches.append(batch)
    return pa.Table.from_batches(batches, file.schema_arrow)


def _read_provenance(path: Path, metadata: dict[bytes, bytes]) -> dict[str, Any]:
    try:
        provenance = json.loads(metadata.get(METADATA_KEY, b"null"))
    except (ValueError, RecursionError):
        provenance = None
    if not isinstance(provenance, dict):
        raise InputError(f"{path} has no metadata about how it was made: {_FIX}")
    version = provenance.get("format_version")
    if version != FORMAT_VERSION:
        raise InputError(f"{path} has format version {version!r}, not {FORMAT_VERSION}: {_FIX}")
    return provenance


def _first_violation(frame: pd.DataFrame) -> str | None:
    """Return a phrase for the first rule that the rows break; None if they break none."""
    return next(_violations(frame), None)


def _violations(frame: pd.DataFrame) -> Iterator[str]:
    if frame.empty:
        yield "no captions"
    if frame.isna().to_numpy().any():
        yield "a missing value"
    for column in ("image_id", "raw", "text"):
        if not all(value.strip() for value in frame[column]):
            yield f"an empty {column}"
    if not frame["split"].isin(SPLITS).all():
        yield f"a split other than {', '.join(SPLITS)}"
    if frame.duplicated(["image_id", "caption_index"]).any():
        yield "two captions with the same image_id and caption_index"
    if frame.drop_duplicates(["image_id", "split"]).duplicated("image_id").any():
        yield "a photo in two splits"
    if [len(text.split()) for text in frame["text"]] != frame["n_words"].tolist():
        yield "an n_words that is not the number of words in its text"
    keys = list(zip(frame["image_id"], frame["caption_index"], strict=True))
    if keys != sorted(keys):
        yield "rows that are not sorted"


def _table_fingerprint(frame: pd.DataFrame) -> str:
    """Return the SHA-256 of the rows, each as a JSON array on its own line."""
    digest = hashlib.sha256()
    for row in frame[SCHEMA.names].itertuples(index=False, name=None):
        digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()
