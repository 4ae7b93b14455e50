"""Captions as a data set gives them, and the account of what was dropped or mended."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

SPLITS = ("train", "dev", "test")
EXAMPLES_PER_REASON = 3
_LONGEST_EXAMPLE = 100
_MEASURABLE = 2  # photos


@dataclass(frozen=True, slots=True)
class Annotation:
    """One caption of one photo.

    Attributes:
        image_id: the photo's POSIX path relative to its photo folder.
        caption_index: position, from 0, among the photo's surviving captions in file order.
        raw: the caption as written, without surrounding white space; never empty.
        split: "train", "dev" or "test"; the same for all captions of a photo.
    """

    image_id: str
    caption_index: int
    raw: str
    split: str


@dataclass
class Summary:
    """What was read, what was kept, and where the rest went.

    Two sums hold: `captions_read` is `captions_kept` plus all of `dropped`, which counts
    captions; `photos_there` is `photos_kept` + `photos_in_no_split` +
    `photos_without_captions`. `repaired` counts what was repaired and kept, `noted` what is
    odd and was kept as it is. `examples` holds the first few of each reason.
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

    def drop(self, reason: str, where: str, what: str) -> None:
        """Count one caption that is left out."""
        self._count(self.dropped, reason, where, what)

    def fix(self, reason: str, where: str, what: str, times: int = 1) -> None:
        """Count what was repaired and is used."""
        self._count(self.repaired, reason, where, what, times)

    def note(self, reason: str, where: str, what: str) -> None:
        """Count what is odd and used as it stands."""
        self._count(self.noted, reason, where, what)

    def finalize(self, kept: Iterable[tuple[str, str]]) -> None:
        """Set every figure that follows from the kept captions: (image_id, split) pairs."""
        pairs = list(kept)
        split_by_photo = dict(pairs)
        self.captions_kept = len(pairs)
        self.photos_kept = len(split_by_photo)
        self.photos_without_captions = (
            self.photos_there - self.photos_kept - self.photos_in_no_split
        )
        of_captions = [split for _, split in pairs]
        of_photos = list(split_by_photo.values())
        self.captions_per_split = {split: of_captions.count(split) for split in SPLITS}
        self.photos_per_split = {split: of_photos.count(split) for split in SPLITS}

    def why_untrainable(self) -> str | None:
        """Say why the kept captions cannot train a captioner; None if they can."""
        if not self.captions_read:
            return "no captions in it"
        if not self.captions_kept:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in self.dropped.items())
            return f"none of its {self.captions_read} captions is usable ({reasons})"
        if not self.captions_per_split["train"]:
            return f"no captions for training (photos per split: {self.photos_per_split})"
        return None

    def unmeasurable_splits(self) -> str | None:
        """Name the splits that a captioner cannot be measured with; None if both will do.

        CIDEr-D, which chooses epochs and heads the scores, means nothing of a single photo.
        """
        few = [split for split in ("dev", "test") if self.photos_per_split[split] < _MEASURABLE]
        return " and ".join(few) or None

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as a JSON object."""
        return asdict(self)

    def _count(
        self, counts: dict[str, int], reason: str, where: str, what: str, times: int = 1
    ) -> None:
        counts[reason] = counts.get(reason, 0) + times
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES_PER_REASON:
            # repr: one line, and no character that a JSON file could not hold.
            examples.append(f"{where}: {what[:_LONGEST_EXAMPLE]!r}")


@dataclass(frozen=True)
class Annotations:
    """A whole data set: rows sorted by (image_id, caption_index), and their summary."""

    rows: list[Annotation]
    summary: Summary
