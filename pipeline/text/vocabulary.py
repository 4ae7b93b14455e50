"""The vocabulary: words to ids and back, as JSON."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.errors import InputError
from pipeline.files import fingerprint, read_json, write_json

FORMAT_VERSION = 1
PAD, START, END, UNK = range(4)
MARKERS = ("<pad>", "<start>", "<end>", "<unk>")
_FIX = "run `dvc repro tokenize`"


@dataclass(frozen=True)
class Vocabulary:
    """Words and their ids; the first four ids are markers, which are never words.

    Attributes:
        words: by falling frequency, then by alphabet; `words[i]` has id `i + 4`.
        counts: how often each word occurs in the training captions.
        unknown: how many words of the training captions were too rare.
        captions: fingerprint of the caption table it was built from.
    """

    words: tuple[str, ...]
    counts: tuple[int, ...]
    unknown: int
    captions: str

    @staticmethod
    def build(texts: Iterable[str], min_count: int, captions: str) -> "Vocabulary":
        """Count the words of clean captions and keep those occurring `min_count` times."""
        counts = Counter(word for text in texts for word in text.split())
        kept = sorted(
            (word for word, count in counts.items() if count >= min_count),
            key=lambda word: (-counts[word], word),
        )
        unknown = counts.total() - sum(counts[word] for word in kept)
        return Vocabulary(tuple(kept), tuple(counts[w] for w in kept), unknown, captions)

    def __len__(self) -> int:
        return len(MARKERS) + len(self.words)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Each word's id."""
        return {word: index for index, word in enumerate(self.words, len(MARKERS))}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the words in their order: what a model's ids mean."""
        return fingerprint(list(self.words))

    def encode(self, text: str) -> list[int]:
        """Return the ids of a clean caption's words, <unk> for those it does not know."""
        return [self.ids.get(word, UNK) for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the words of `ids`, without markers, joined by spaces."""
        first = len(MARKERS)
        return " ".join(self.words[index - first] for index in ids if index >= first)

    def save(self, path: Path) -> None:
        """Write the vocabulary as JSON."""
        write_json(
            path,
            {
                "format_version": FORMAT_VERSION,
                "fingerprint": self.fingerprint,
                "captions": self.captions,
                "markers": MARKERS,
                "words": self.words,
                "counts": self.counts,
                "unknown": self.unknown,
            },
        )

    @staticmethod
    def load(path: Path, captions: str | None = None) -> "Vocabulary":
        """Read a vocabulary.

        Args:
            path: the file.
            captions: fingerprint of the caption table that it has to be of; None is any.

        Raises:
            InputError: absent, damaged, of another version, edited by hand, or built from
                other captions.
        """
        values = read_json(path, _FIX)
        if values.get("format_version") != FORMAT_VERSION or values.get("markers") != [*MARKERS]:
            raise InputError(f"{path} is of another format version: {_FIX}")
        try:
            vocabulary = Vocabulary(
                tuple(map(str, values["words"])),
                tuple(map(int, values["counts"])),
                int(values["unknown"]),
                str(values["captions"]),
            )
            intact = vocabulary.fingerprint == values.get("fingerprint")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise InputError(f"{path} is damaged ({reason}): {_FIX}") from None
        if not intact:
            raise InputError(f"{path} does not hold what its fingerprint says: {_FIX}")
        if captions not in (None, vocabulary.captions):
            raise InputError(
                f"{path} was built from other captions than captions.parquet holds: {_FIX}"
            )
        return vocabulary
