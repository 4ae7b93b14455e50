"""Words: which ones captions have too often, and which ones never."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.metrics.tokenizer import tokenize

_SHOWN = 15
# Rarer words are over-used by chance: said so often at least, and in 2 % of the captions.
_SAID = 3
_SAID_SHARE = 0.02
_OVER_USED = 1.5  # times as large a share


@dataclass(frozen=True)
class Word:
    """A word in captions and in references.

    Attributes:
        word: itself.
        said: how often captions have it.
        written: how often references have it.
        ratio: how many times as large a share of the captions' words it is.
    """

    word: str
    said: int
    written: int
    ratio: float


@dataclass(frozen=True)
class WordUsage:
    """How the captions' words differ from the references'.

    Attributes:
        over_used: frequent words with far greater shares, the greatest ratio first.
        never_used: words of the references in no caption, the most frequent first.
        missing: how many different words there are of those.
        written: how many different words the references have.
    """

    over_used: Sequence[Word]
    never_used: Sequence[Word]
    missing: int
    written: int


def compare_words(captions: Sequence[str], references: Iterable[str]) -> WordUsage:
    """Compare the words of captions with those of references, as the scorer reads both."""
    said = Counter(word for caption in captions for word in tokenize(caption))
    written = Counter(word for reference in references for word in tokenize(reference))
    least = max(_SAID, math.ceil(_SAID_SHARE * len(captions)))
    often = [_word(word, said, written) for word, count in said.items() if count >= least]
    over_used = [word for word in often if word.ratio >= _OVER_USED]
    never_used = [_word(word, said, written) for word in written if word not in said]
    return WordUsage(
        over_used=sorted(over_used, key=lambda word: (-word.ratio, word.word))[:_SHOWN],
        never_used=sorted(never_used, key=lambda word: (-word.written, word.word))[:_SHOWN],
        missing=len(never_used),
        written=len(written),
    )


def _word(word: str, said: Counter[str], written: Counter[str]) -> Word:
    # Half a word more on each side: what references never have is not infinitely over-used.
    ours = (said[word] + 0.5) / (said.total() + 0.5)
    theirs = (written[word] + 0.5) / (written.total() + 0.5)
    return Word(word, said[word], written[word], ours / theirs)
