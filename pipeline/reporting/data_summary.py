"""The data set as the report shows it: splits, lengths, words, and what was left out and why."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.datasets.caption_table import CaptionTable
from pipeline.datasets.reasons import DROPPED, NOTED, REPAIRED
from pipeline.datasets.splits import SPLITS
from pipeline.files import read_json

_MAX_LENGTHS = 12  # rows in the chart of caption lengths
_MOST_FREQUENT = 20  # words
# The kinds of entries that `clean` counts, and the keys that are shown elsewhere.
_CHANGES = {"dropped": DROPPED, "repaired": REPAIRED, "noted": NOTED}
_SHOWN_ELSEWHERE = {
    *(*_CHANGES, "examples", "captions_per_split", "photos_per_split"),
    *("captions_read", "captions_kept", "photos_there", "photos_kept"),
    *("distinct_words", "longest_caption_words"),
}


@dataclass(frozen=True)
class SplitSummary:
    """One split's captions.

    Attributes:
        name: "train", "dev" or "test".
        photos: number of photos.
        captions: number of captions.
        median_words: median number of words per caption.
        shortest: words of its shortest caption.
        longest: words of its longest caption.
        distinct_words: number of different words.
    """

    name: str
    photos: int
    captions: int
    median_words: float
    shortest: int
    longest: int
    distinct_words: int


@dataclass(frozen=True)
class Change:
    """What `clean` did for one reason.

    Attributes:
        kind: "dropped", "repaired" or "noted".
        reason: why, as captions.json and `clean` name it.
        count: how often.
        examples: the first few places.
    """

    kind: str
    reason: str
    count: int
    examples: Sequence[str]


@dataclass(frozen=True)
class DataSummary:
    """The data set that a model was trained and scored on.

    Attributes:
        splits: every split that has captions.
        lengths: (label, number of training captions) by number of words, the shortest first.
        frequent_words: the most frequent words of the training captions.
        changes: what `clean` dropped, repaired and noted.
        counts: (label, count) of everything else in captions.json that was counted.
        listed: (label, names or pairs of names) of everything else that captions.json lists.
        failed: (image_id, split, reason) of the photos without features; the split is empty for
            a photo without captions.
    """

    splits: Sequence[SplitSummary]
    lengths: Sequence[tuple[str, int]]
    frequent_words: Sequence[str]
    changes: Sequence[Change]
    counts: Sequence[tuple[str, int]]
    listed: Sequence[tuple[str, Sequence[str]]]
    failed: Sequence[tuple[str, str, str]]

    @property
    def failed_test_photos(self) -> int:
        """How many photos of the test split failed."""
        return sum(split == "test" for _, split, _ in self.failed)


def read_data_summary(folder: Path, table: CaptionTable) -> DataSummary:
    """Summarize the data set from artifacts/.

    Entries of captions.json that this code does not know are shown as they are.

    Args:
        folder: the folder with captions.json and extract.json.
        table: the caption table.

    Raises:
        InputError: captions.json or extract.json is missing or damaged.
    """
    counted = read_json(folder / "captions.json", "run `dvc repro clean`")
    extracted = read_json(folder / "extract.json", "run `dvc repro extract`")
    training = table.frame[table.frame["split"] == "train"]
    split_by_id = dict(zip(table.frame["image_id"], table.frame["split"], strict=True))
    words = Counter(word for text in training["text"] for word in text.split())
    ranked = sorted(words, key=lambda word: (-words[word], word))
    others = {key: value for key, value in counted.items() if key not in _SHOWN_ELSEWHERE}
    return DataSummary(
        splits=_splits(table.frame),
        lengths=_lengths(Counter(training["n_words"].tolist())),
        frequent_words=ranked[:_MOST_FREQUENT],
        changes=_changes(counted),
        counts=[(_label(key), n) for key, n in others.items() if _is_count(n) and n],
        listed=[entry for key, value in others.items() for entry in _listed(_label(key), value)],
        failed=[
            (image_id, split_by_id.get(image_id, ""), str(reason))
            for image_id, reason in sorted(_mapping(extracted.get("failed")).items())
        ],
    )


def _splits(frame: pd.DataFrame) -> list[SplitSummary]:
    summaries = []
    for name in SPLITS:
        rows = frame[frame["split"] == name]
        if len(rows):
            summaries.append(
                SplitSummary(
                    name=name,
                    photos=rows["image_id"].nunique(),
                    captions=len(rows),
                    median_words=float(rows["n_words"].median()),
                    shortest=int(rows["n_words"].min()),
                    longest=int(rows["n_words"].max()),
                    distinct_words=len({word for text in rows["text"] for word in text.split()}),
                )
            )
    return summaries


def _lengths(captions_by_length: Mapping[int, int]) -> list[tuple[str, int]]:
    """Return captions by number of words, in ranges of equal width if there are many lengths."""
    if not captions_by_length:
        return []
    first, last = min(captions_by_length), max(captions_by_length)
    width = math.ceil((last - first + 1) / _MAX_LENGTHS)
    groups = []
    for start in range(first, last + 1, width):
        end = min(start + width - 1, last)
        label = f"{start} to {end}" if end > start else f"{start}"
        captions = sum(captions_by_length.get(length, 0) for length in range(start, end + 1))
        groups.append((label, captions))
    return groups


def _changes(counted: Mapping[str, Any]) -> list[Change]:
    examples = _mapping(counted.get("examples"))
    return [
        Change(kind, _with_meaning(reason, meanings), count, _lines(examples.get(reason)))
        for kind, meanings in _CHANGES.items()
        for reason, count in _mapping(counted.get(kind)).items()
        if _is_count(count)
    ]


def _with_meaning(reason: str, meanings: Mapping[str, str]) -> str:
    return f"{reason} ({meanings[reason]})" if reason in meanings else reason


def _listed(label: str, value: Any) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield what a list has, or each list of an object of lists, such as `photo_lists`.

    Each entry of `other_files` has the names of its files, too, after what to do with them.
    """
    if isinstance(value, dict) and all(isinstance(entry, list | dict) for entry in value.values()):
        for name, entry in value.items():
            files = entry.get("files") if isinstance(entry, dict) else None
            lines = [str(entry.get("fix")), *_lines(files)] if files else _lines(entry)
            if lines:
                yield f"{label}: {_label(name)}", lines
    elif value and isinstance(value, list | dict):
        yield label, _lines(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _lines(value: Any) -> list[str]:
    """Return a JSON value as lines: one for each entry of a list or an object."""
    if isinstance(value, dict):
        return [f"{key}: {_line(entry)}" for key, entry in value.items()]
    return [_line(entry) for entry in value] if isinstance(value, list) else []


def _line(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_line, value))
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_line(entry)}" for key, entry in value.items())
    return str(value)


def _label(key: str) -> str:
    return key.replace("_", " ")
