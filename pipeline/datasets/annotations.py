"""The captions of a data set, and a summary of what was dropped or repaired."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.datasets.splits import MIN_PHOTOS_PER_SPLIT, SPLITS
from pipeline.image_types import FileType

EXAMPLES_PER_REASON = 3
_MAX_EXAMPLE_LENGTH = 100  # characters
# Repairs of a row's form; other repairs may be right for every row, for example those of names.
_ROW_REPAIRS = ("unquoted_comma", "open_quote")
# A quarter of Flickr8k's captions have commas, and some copies on Kaggle do not quote them.
_MISREAD_SHARE = 0.9
_MIN_ROWS = 5  # training takes at least five photos: one for train, two each for dev and test


@dataclass(frozen=True, slots=True)
class Annotation:
    """One caption of one photo.

    Attributes:
        image_id: the photo's POSIX path relative to its photo folder.
        caption_index: position, from 0, among the photo's kept captions in file order.
        raw: the caption as written, without surrounding white space; never empty.
        split: "train", "dev" or "test"; the same for all captions of a photo.
    """

    image_id: str
    caption_index: int
    raw: str
    split: str


@dataclass
class Summary:
    """Counts of captions and photos that were read, kept, dropped and repaired.

    Two sums hold: `captions_read` is `captions_kept` plus all of `dropped`, which counts
    captions; `photos_there` is `photos_kept` + `photos_in_no_split` +
    `photos_without_captions`. `repaired` counts repairs, `noted` counts unusual entries that
    were kept unchanged. `examples` holds the first few of each reason.

    Attributes:
        photo_lists: all names behind the figures of photos: "photo_not_there",
            "photo_of_other_type", "photo_name_ambiguous" and "unsafe_name" as captions name
            them; "without_captions" and "in_no_split" as image_ids.
        nearest_photos: the first few names that are not there -> the photo most like each.
        other_files: the types of the files of the photo folder that are no photos -> `count`,
            `fix` and the names of all `files`.
        duplicates_across_splits: groups of photos with equal bytes, image_id -> split, that
            have photos in more than one split.
        duplicates_within_splits: number of photos that repeat another photo of their split.
    """

    captions_read: int = 0
    captions_kept: int = 0
    captions_per_split: dict[str, int] = field(default_factory=dict)
    photos_there: int = 0
    photos_kept: int = 0
    photos_per_split: dict[str, int] = field(default_factory=dict)
    photos_not_there: int = 0
    photos_in_no_split: int = 0
    photos_in_two_splits: int = 0
    photos_without_captions: int = 0
    listed_photos_not_there: int = 0
    distinct_words: int | None = None
    longest_caption_words: int | None = None
    dropped: dict[str, int] = field(default_factory=dict)
    repaired: dict[str, int] = field(default_factory=dict)
    noted: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    photo_lists: dict[str, list[str]] = field(default_factory=dict)
    nearest_photos: dict[str, str] = field(default_factory=dict)
    other_files: dict[str, dict[str, Any]] = field(default_factory=dict)
    duplicates_across_splits: list[dict[str, str]] = field(default_factory=list)
    duplicates_within_splits: int = 0

    def drop(self, reason: str, where: str, text: str) -> None:
        """Count one caption that is left out."""
        self._count(self.dropped, reason, where, text)

    def repair(self, reason: str, where: str, text: str, count: int = 1) -> None:
        """Count `count` repairs of text that is then used."""
        self._count(self.repaired, reason, where, text, count)

    def note(self, reason: str, where: str, text: str, count: int = 1) -> None:
        """Count `count` times something unusual that is used unchanged."""
        self._count(self.noted, reason, where, text, count)

    def add_other_files(self, files: Mapping[str, FileType]) -> None:
        """List the files of a photo folder that are no photos, by type."""
        for name, file_type in files.items():
            entry = self.other_files.setdefault(
                file_type.plural, {"count": 0, "fix": file_type.fix, "files": []}
            )
            entry["count"] += 1
            entry["files"].append(name)

    def finalize(self, kept: Iterable[tuple[str, str]]) -> None:
        """Set every figure that follows from the kept captions: (image_id, split) pairs."""
        pairs = list(kept)
        split_by_photo = dict(pairs)
        self.captions_kept = len(pairs)
        self.photos_kept = len(split_by_photo)
        self.photos_without_captions = (
            self.photos_there - self.photos_kept - self.photos_in_no_split
        )
        caption_splits = [split for _, split in pairs]
        photo_splits = list(split_by_photo.values())
        self.captions_per_split = {split: caption_splits.count(split) for split in SPLITS}
        self.photos_per_split = {split: photo_splits.count(split) for split in SPLITS}

    def why_untrainable(self) -> str | None:
        """Return why no captioner can be trained on the data set; None if one can."""
        if not self.captions_read:
            return "no captions"
        if not self.captions_kept:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in self.dropped.items())
            return (
                f"no usable captions: all {self.captions_read} were dropped ({reasons})"
                + self._missing_names()
            )
        if not self.captions_per_split["train"]:
            return f"no captions for training (photos per split: {self.photos_per_split})"
        return None

    def why_another_format(self) -> str | None:
        """Return why the captions cannot be in the format in which they were read; None if fine.

        A reader that drops or repairs nearly every row is not repairing: it misreads the file.
        The few rows of a file that is too small to train from prove nothing, unless none fits.
        """
        misread = self.dropped.get("malformed", 0)
        misread += max(self.repaired.get(reason, 0) for reason in _ROW_REPAIRS)
        fewest = _MIN_ROWS if self.captions_kept else 1
        if self.captions_read < fewest or misread < _MISREAD_SHARE * self.captions_read:
            return None
        counts = {**self.repaired, **self.dropped}
        reason = max(("malformed", *_ROW_REPAIRS), key=lambda name: counts.get(name, 0))
        example = self.examples[reason][0]
        return f"{misread} of {self.captions_read} rows do not have its form, the first: {example}"

    def undersized_splits(self) -> str | None:
        """Name the scored splits with fewer than `MIN_PHOTOS_PER_SPLIT` photos; None if none."""
        names = [
            split
            for split in ("dev", "test")
            if self.photos_per_split[split] < MIN_PHOTOS_PER_SPLIT
        ]
        return " and ".join(names) or None

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as a JSON object."""
        return asdict(self)

    def _missing_names(self) -> str:
        if not self.nearest_photos:
            return ""
        names = ", ".join(map(repr, self.nearest_photos))
        photos = ", ".join(map(repr, dict.fromkeys(self.nearest_photos.values())))
        return f"; the captions name {names}, the photos most like these are {photos}"

    def _count(
        self, counts: dict[str, int], reason: str, where: str, text: str, count: int = 1
    ) -> None:
        counts[reason] = counts.get(reason, 0) + count
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES_PER_REASON:
            # repr keeps it on one line and escapes characters that UTF-8 cannot encode, which
            # `where` may have, too: a file's name may be any bytes.
            place = where.encode("utf-8", "backslashreplace").decode()
            examples.append(f"{place}: {text[:_MAX_EXAMPLE_LENGTH]!r}")


@dataclass(frozen=True)
class Annotations:
    """All captions of a data set: rows sorted by (image_id, caption_index), and their summary."""

    rows: list[Annotation]
    summary: Summary
