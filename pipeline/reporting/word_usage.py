"""Word usage: words that captions use too often, and words that they never use."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.metrics.tokenizer import tokenize

_MAX_WORDS = 15
# Rarer words are over-used by chance, so a word must reach both this count and this share of
# the captions.
_MIN_COUNT = 3
_MIN_CAPTION_SHARE = 0.02
_MIN_RATIO = 1.5  # how many times as frequent as in the references an over-used word is


@dataclass(frozen=True)
class WordCount:
    """A word's counts in captions and in references.

    Attributes:
        word: the word.
        in_captions: its occurrences in the captions.
        in_references: its occurrences in the references.
        ratio: its relative frequency in the captions divided by that in the references.
    """

    word: str
    in_captions: int
    in_references: int
    ratio: float


@dataclass(frozen=True)
class WordUsage:
    """How the captions' words differ from the references' words.

    Attributes:
        over_used: frequent words with a much higher relative frequency than in the references,
            the greatest ratio first.
        never_used: words of the references that no caption has, the most frequent first.
        never_used_total: number of different words that no caption has.
        reference_words: number of different words in the references.
    """

    over_used: Sequence[WordCount]
    never_used: Sequence[WordCount]
    never_used_total: int
    reference_words: int


def compare_words(captions: Sequence[str], references: Iterable[str]) -> WordUsage:
    """Compare the words of captions with those of references, tokenized as for scoring."""
    in_captions = _count_words(captions)
    in_references = _count_words(references)
    caption_total, reference_total = in_captions.total(), in_references.total()

    def word_count(word: str) -> WordCount:
        # Half an occurrence more on each side: a word that no reference has is not infinitely
        # over-used.
        caption_share = (in_captions[word] + 0.5) / (caption_total + 0.5)
        reference_share = (in_references[word] + 0.5) / (reference_total + 0.5)
        ratio = caption_share / reference_share
        return WordCount(word, in_captions[word], in_references[word], ratio)

    min_count = max(_MIN_COUNT, math.ceil(_MIN_CAPTION_SHARE * len(captions)))
    frequent = [word_count(word) for word, count in in_captions.items() if count >= min_count]
    over_used = [count for count in frequent if count.ratio >= _MIN_RATIO]
    never_used = [word_count(word) for word in in_references if word not in in_captions]
    return WordUsage(
        over_used=sorted(over_used, key=lambda count: (-count.ratio, count.word))[:_MAX_WORDS],
        never_used=sorted(never_used, key=lambda count: (-count.in_references, count.word))[
            :_MAX_WORDS
        ],
        never_used_total=len(never_used),
        reference_words=len(in_references),
    )


def _count_words(texts: Iterable[str]) -> Counter[str]:
    return Counter(word for text in texts for word in tokenize(text))
