"""Collection: captions as their files give them become the rows of one data set."""

import reprlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.datasets.annotations import Annotation, Annotations, Summary
from pipeline.datasets.photo_folders import find, is_safe


@dataclass(frozen=True, slots=True)
class Record:
    """One caption as its file has it, nothing checked.

    Attributes:
        where: file and line, or file and JSON path.
        names: what the photo may be called, the likeliest first; empty if the entry is so
            malformed that it names none.
        number: the caption's number or id in the file; None if it has none.
        caption: the caption; anything but a string is a wrong type.
    """

    where: str
    names: tuple[str, ...]
    number: int | str | None
    caption: object


def identity(entry: Any, key: str) -> int | str | None:
    """Return a JSON entry's number or id; None if it has none of a usable type."""
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None


def collect(
    records: Iterable[Record],
    photos: Collection[str],
    splits: Mapping[str, str],
    summary: Summary,
) -> Annotations:
    """Keep the usable captions and account for every other one.

    Args:
        records: the captions in file order.
        photos: the image_ids that are there.
        splits: image_id -> split; captions of other photos are dropped.
        summary: where everything is counted; it becomes the result's.
    """
    collector = _Collector(photos, splits, summary)
    for record in records:
        collector.add(record)
    return collector.finish()


class _Collector:
    def __init__(
        self, photos: Collection[str], splits: Mapping[str, str], summary: Summary
    ) -> None:
        self._photos = photos
        self._splits = splits
        self._summary = summary
        self._captions: dict[str, list[str]] = {}
        self._numbers: dict[str, dict[int | str, set[str]]] = {}
        self._not_there: set[str] = set()
        self._in_no_split: set[str] = set()

    def add(self, record: Record) -> None:
        self._summary.captions_read += 1
        image_id = self._photo(record)
        if image_id is None:
            return
        caption = self._caption(record)
        if caption is None or self._is_repeated(image_id, record, caption):
            return
        captions = self._captions.setdefault(image_id, [])
        if caption in captions:
            self._summary.note("same_wording", record.where, caption)
        if not caption.isascii():
            self._summary.note("non_ascii", record.where, caption)
        captions.append(caption)

    def finish(self) -> Annotations:
        rows = [
            Annotation(image_id, index, caption, self._splits[image_id])
            for image_id in sorted(self._captions)
            for index, caption in enumerate(self._captions[image_id])
        ]
        self._summary.photos_there = len(self._photos)
        self._summary.photos_not_there = len(self._not_there)
        self._summary.photos_in_no_split = len(self._in_no_split)
        self._summary.finalize((row.image_id, row.split) for row in rows)
        return Annotations(rows, self._summary)

    def _photo(self, record: Record) -> str | None:
        """Return the image_id of a photo that is there and in a split."""
        summary, where = self._summary, record.where
        if not record.names:
            summary.drop("malformed", where, _shown(record.caption))
            return None
        name = record.names[0]
        if not all(is_safe(alternative) for alternative in record.names):
            summary.drop("unsafe_name", where, name)
            return None
        image_id, stray = find(record.names, self._photos)
        if image_id is None:
            self._not_there.add(name)
            summary.drop("photo_not_there", where, name)
            if stray:
                summary.note("stray_suffix_not_there", where, name)
            return None
        if stray:
            summary.fix("stray_suffix", where, name)
        if image_id not in self._splits:
            self._in_no_split.add(image_id)
            summary.drop("photo_in_no_split", where, name)
            return None
        return image_id

    def _caption(self, record: Record) -> str | None:
        """Return the caption, mended; None if there is nothing in it."""
        summary, where, raw = self._summary, record.where, record.caption
        if not isinstance(raw, str):
            summary.drop("wrong_type", where, _shown(raw))
            return None
        caption = raw
        if "\0" in caption:
            caption = caption.replace("\0", " ")
            summary.fix("nul_characters", where, raw)
        # JSON can spell half a character (\ud800), which no UTF-8 file can hold.
        whole = caption.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if whole != caption:
            caption = whole
            summary.fix("lone_surrogates", where, raw)
        caption = caption.strip()
        if not caption:
            summary.drop("empty_caption", where, raw)
            return None
        return caption

    def _is_repeated(self, image_id: str, record: Record, caption: str) -> bool:
        """Drop a row that says nothing new; note a number that is used for two captions."""
        if record.number is None:
            return False
        texts = self._numbers.setdefault(image_id, {}).setdefault(record.number, set())
        if caption in texts:
            self._summary.drop("repeated_row", record.where, caption)
            return True
        if texts:
            self._summary.note("reused_number", record.where, caption)
        texts.add(caption)
        return False


def _shown(value: object) -> str:
    # reprlib: a JSON value may be nested deeper than repr can go.
    return value if isinstance(value, str) else reprlib.repr(value)
