"""Collection: turns the raw captions of a data set's files into annotations."""

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.datasets.annotations import (
    EXAMPLES_PER_REASON,
    Annotation,
    Annotations,
    Summary,
)
from pipeline.datasets.photo_names import Match, PhotoIndex, PhotoNames

_MAX_NAME_LENGTH = 255  # characters; a file system takes no longer names
# A photo listed in several splits goes to the first of these: no training photo may be scored.
_SPLIT_PRECEDENCE = ("test", "dev", "train")


@dataclass(frozen=True, slots=True)
class RawCaption:
    """One caption as read from its file, not yet checked.

    Attributes:
        where: file and line, or file and JSON path.
        names: possible names of the photo, the likeliest first; empty if the entry is so
            malformed that it names no photo.
        number: the caption's number or id in the file; None if it has none.
        caption: the caption; anything but a string is counted as a wrong type.
    """

    where: str
    names: PhotoNames
    number: int | str | None
    caption: object


def json_id(entry: Any, key: str) -> int | str | None:
    """Return the number or id under `key` of a JSON entry; None if it has no usable one."""
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None


def merge_split_lists(
    lists: Mapping[str, Iterable[str]], where: str, summary: Summary
) -> dict[str, str]:
    """Return image_id -> split from split -> image_ids.

    A photo in several lists goes to the first of test, dev, train that has it; each such
    photo is counted in `summary.photos_in_two_splits`.
    """
    splits: dict[str, str] = {}
    duplicates: set[str] = set()
    for split in _SPLIT_PRECEDENCE:
        for image_id in lists.get(split, ()):
            chosen = splits.setdefault(image_id, split)
            if chosen != split and image_id not in duplicates:
                duplicates.add(image_id)
                summary.note("photo_in_two_splits", where, f"{image_id}: {chosen}, not {split}")
    summary.photos_in_two_splits = len(duplicates)
    return splits


def collect_annotations(
    captions: Iterable[RawCaption],
    photos: PhotoIndex,
    splits: Mapping[str, str],
    summary: Summary,
) -> Annotations:
    """Keep the usable captions and count all others.

    Args:
        captions: the captions in file order.
        photos: the existing photos.
        splits: image_id -> split; captions of other photos are dropped.
        summary: counts everything; it becomes the result's summary.
    """
    all_captions = list(captions)
    matches = photos.match_all(caption.names for caption in all_captions if caption.names)
    collector = _Collector(photos, matches, splits, summary)
    for caption in all_captions:
        collector.add(caption)
    return collector.finish()


class _Collector:
    def __init__(
        self,
        photos: PhotoIndex,
        matches: Mapping[PhotoNames, Match],
        splits: Mapping[str, str],
        summary: Summary,
    ) -> None:
        self._photos = photos
        self._matches = matches
        self._splits = splits
        self._summary = summary
        self._captions: dict[str, list[str]] = {}
        self._texts_by_number: dict[str, dict[int | str, set[str]]] = {}
        self._unmatched: dict[str, dict[str, None]] = {}  # reason -> names in file order
        self._photos_in_no_split: set[str] = set()

    def add(self, raw: RawCaption) -> None:
        self._summary.captions_read += 1
        image_id = self._find_photo(raw)
        if image_id is None:
            return
        caption = self._repair_text(raw)
        if caption is None or self._is_repeated(image_id, raw, caption):
            return
        captions = self._captions.setdefault(image_id, [])
        if caption in captions:
            self._summary.note("same_wording", raw.where, caption)
        if not caption.isascii():
            self._summary.note("non_ascii", raw.where, caption)
        captions.append(caption)

    def finish(self) -> Annotations:
        rows = [
            Annotation(image_id, index, caption, self._splits[image_id])
            for image_id in sorted(self._captions)
            for index, caption in enumerate(self._captions[image_id])
        ]
        summary, missing = self._summary, self._unmatched.get("photo_not_there", {})
        summary.photos_there = len(self._photos)
        summary.photos_not_there = len(missing)
        summary.photos_in_no_split = len(self._photos_in_no_split)
        summary.finalize((row.image_id, row.split) for row in rows)
        captionless = set(self._photos) - self._captions.keys() - self._photos_in_no_split
        lists = self._unmatched | {
            "in_no_split": self._photos_in_no_split,
            "without_captions": captionless,
        }
        summary.photo_lists = {
            name: sorted(map(_storable, photos)) for name, photos in lists.items()
        }
        for name in list(missing)[:EXAMPLES_PER_REASON]:
            if (nearest := self._photos.nearest(name)) is not None:
                summary.nearest_photos[_storable(name)] = nearest
        return Annotations(rows, summary)

    def _find_photo(self, raw: RawCaption) -> str | None:
        """Return the image_id of a photo that exists and is in a split; else drop the caption."""
        summary, where = self._summary, raw.where
        if not raw.names:
            summary.drop("malformed", where, _as_text(raw.caption))
            return None
        name, match = raw.names[0], self._matches[raw.names]
        if match.image_id is None:
            self._unmatched.setdefault(match.reason, {})[name] = None
            summary.drop(match.reason, where, name)
            if match.has_stray_suffix:
                summary.note("stray_suffix_not_there", where, name)
            return None
        if match.repair:
            summary.repair(match.repair, where, match.describe_repair(name))
        if match.image_id not in self._splits:
            self._photos_in_no_split.add(match.image_id)
            summary.drop("photo_in_no_split", where, name)
            return None
        return match.image_id

    def _repair_text(self, raw: RawCaption) -> str | None:
        """Return the repaired caption; None, and drop it, if it is empty or not a string."""
        summary, where, text = self._summary, raw.where, raw.caption
        if not isinstance(text, str):
            summary.drop("wrong_type", where, _as_text(text))
            return None
        caption = text
        if "\0" in caption:
            caption = caption.replace("\0", " ")
            summary.repair("nul_characters", where, text)
        # JSON can contain half a character (\ud800), which UTF-8 cannot encode.
        encodable = caption.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if encodable != caption:
            caption = encodable
            summary.repair("lone_surrogates", where, text)
        caption = caption.strip()
        if not caption:
            summary.drop("empty_caption", where, text)
            return None
        return caption

    def _is_repeated(self, image_id: str, raw: RawCaption, caption: str) -> bool:
        """Drop a row that repeats an earlier one; note a number used for two captions."""
        if raw.number is None:
            return False
        texts = self._texts_by_number.setdefault(image_id, {}).setdefault(raw.number, set())
        if caption in texts:
            self._summary.drop("repeated_row", raw.where, caption)
            return True
        if texts:
            self._summary.note("reused_number", raw.where, caption)
        texts.add(caption)
        return False


def _storable(name: str) -> str:
    """Return a name from a caption file as UTF-8 can store it, and no longer than file names."""
    return name[:_MAX_NAME_LENGTH].encode("utf-8", "backslashreplace").decode()


def _as_text(value: object) -> str:
    # reprlib, because a JSON value may be nested deeper than repr can go.
    return value if isinstance(value, str) else reprlib.repr(value)
