"""The vocabulary: words to ids and back, as JSON."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.errors import InputError
from pipeline.files import fingerprint, read_json, record_from_json, write_json

FORMAT_VERSION = 1
PAD, START, END, UNK = range(4)
SPECIAL_TOKENS = ("<pad>", "<start>", "<end>", "<unk>")
_FIX = "run `dvc repro tokenize`"


@dataclass(frozen=True)
class Vocabulary:
    """Words and their ids; the first four ids are special tokens, which are never words.

    Attributes:
        words: by descending frequency, then alphabetically; `words[i]` has id `i + 4`.
        counts: number of occurrences of each word in the training captions.
        unknown_count: number of words in the training captions that became <unk>.
        captions_fingerprint: fingerprint of the caption table it was built from.
    """

    words: tuple[str, ...]
    counts: tuple[int, ...]
    unknown_count: int
    captions_fingerprint: str

    @staticmethod
    def build(texts: Iterable[str], min_count: int, captions_fingerprint: str) -> "Vocabulary":
        """Count the words of clean captions and keep those that occur `min_count` times or more."""
        counts = Counter(word for text in texts for word in text.split())
        words = sorted(
            (word for word, count in counts.items() if count >= min_count),
            key=lambda word: (-counts[word], word),
        )
        word_counts = tuple(counts[word] for word in words)
        unknown_count = counts.total() - sum(word_counts)
        return Vocabulary(tuple(words), word_counts, unknown_count, captions_fingerprint)

    def __len__(self) -> int:
        return len(SPECIAL_TOKENS) + len(self.words)

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each word."""
        return {word: index for index, word in enumerate(self.words, len(SPECIAL_TOKENS))}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the words in order, which defines the meaning of a model's ids."""
        return fingerprint(list(self.words))

    def encode(self, text: str) -> list[int]:
        """Return the ids of a clean caption's words, <unk> for words not in the vocabulary."""
        return [self.ids.get(word, UNK) for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the words of `ids`, without special tokens, joined by spaces."""
        first = len(SPECIAL_TOKENS)
        return " ".join(self.words[index - first] for index in ids if index >= first)

    def check(self) -> None:
        """Check what the fingerprint does not: that the words can be words, and have counts.

        Raises:
            ValueError: a rule is broken.
        """
        for word in self.words:
            if word.split() != [word] or word in SPECIAL_TOKENS:
                raise ValueError(f"{word!r:.40} is no word")
        if len(self.ids) < len(self.words):
            raise ValueError("a word occurs twice")
        if len(self.counts) != len(self.words) or min((self.unknown_count, *self.counts)) < 0:
            raise ValueError("its counts do not fit its words")

    def save(self, path: Path) -> None:
        """Write the vocabulary as JSON."""
        write_json(
            path,
            {
                "format_version": FORMAT_VERSION,
                "fingerprint": self.fingerprint,
                "captions": self.captions_fingerprint,
                "markers": SPECIAL_TOKENS,
                "words": self.words,
                "counts": self.counts,
                "unknown": self.unknown_count,
            },
        )

    @staticmethod
    def load(path: Path, captions_fingerprint: str | None = None) -> "Vocabulary":
        """Read a vocabulary.

        Args:
            path: the file.
            captions_fingerprint: fingerprint of the caption table that the vocabulary must
                have been built from; None accepts any.

        Raises:
            InputError: missing, damaged, of another version, edited by hand, or built from
                other captions.
        """
        values = read_json(path, _FIX)
        if (values.get("format_version"), values.get("markers")) != (
            FORMAT_VERSION,
            [*SPECIAL_TOKENS],
        ):
            raise InputError(f"{path} has another format version: {_FIX}")
        recorded = values.get("fingerprint")
        try:
            contents = record_from_json(_Contents, values | {"fingerprint": str(recorded)})
            vocabulary = Vocabulary(
                contents.words, contents.counts, contents.unknown, contents.captions
            )
            is_intact = vocabulary.fingerprint == recorded
            if is_intact:
                vocabulary.check()
        except ValueError as error:
            raise InputError(f"{path} is damaged ({error}): {_FIX}") from None
        if not is_intact:
            raise InputError(f"{path} does not match its own fingerprint: {_FIX}")
        if captions_fingerprint not in (None, vocabulary.captions_fingerprint):
            raise InputError(
                f"{path} was built from other captions than those in captions.parquet: {_FIX}"
            )
        return vocabulary


@dataclass(frozen=True)
class _Contents:
    """The contents of vocabulary.json; see `Vocabulary`."""

    format_version: int
    fingerprint: str
    captions: str
    markers: tuple[str, ...]
    words: tuple[str, ...]
    counts: tuple[int, ...]
    unknown: int
