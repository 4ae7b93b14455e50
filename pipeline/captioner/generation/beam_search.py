"""Search: from a photo's features to its likeliest captions, greedily or with a beam."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.captioner.generation.interfaces import Hypothesis, LogProbs, Reranker, StepDecoder
from pipeline.text.vocabulary import END, PAD, START, UNK

_FORBIDDEN = [PAD, START, UNK]
ROWS = 256  # hypotheses that one step of the decoder extends together


@dataclass
class _Beam:
    """One photo's search: hypotheses in work, best first, and those that are done."""

    width: int
    no_repeat_ngram_size: int
    live: list[tuple[float, tuple[int, ...]]] = field(default_factory=lambda: [(0.0, ())])
    done: list[Hypothesis] = field(default_factory=list)

    def grow(self, log_probabilities: LogProbs, max_words: int) -> list[int]:
        """Take the step's (width, V) scores; return which live hypothesis each new one extends."""
        vocabulary_size = log_probabilities.shape[1]
        if self.no_repeat_ngram_size:
            for row, (_, ids) in enumerate(self.live):
                log_probabilities[row, _repeating(ids, self.no_repeat_ngram_size)] = -np.inf
        before = np.array([score for score, _ in self.live])
        totals = (log_probabilities[: len(before)] + before[:, None]).ravel()
        grown: list[tuple[float, tuple[int, ...]]] = []
        parents: list[int] = []
        # What has ended keeps its place: `width` hypotheses in all, ended or not.
        for candidate in _largest(totals, self.width - len(self.done)):
            parent, word = divmod(int(candidate), vocabulary_size)
            total, ids = float(totals[candidate]), self.live[parent][1]
            if total == -np.inf:
                break
            if word == END:
                self.done.append(Hypothesis(ids, total, finished=True))
            else:
                grown.append((total, (*ids, word)))
                parents.append(parent)
        if not grown and not self.done:  # logits that are no numbers lead nowhere
            self.done = [Hypothesis(ids, total, finished=False) for total, ids in self.live]
        self.live = grown
        if grown and len(grown[0][1]) == max_words:
            self.done += [Hypothesis(ids, total, finished=False) for total, ids in grown]
            self.live = []
        return parents

    def ranked(self) -> list[Hypothesis]:
        return sorted(self.done, key=lambda h: (-h.finished, -h.score, h.ids))


def search(
    decoder: StepDecoder,
    features: npt.NDArray[np.float32],
    beam_width: int,
    max_words: int,
    *,
    no_repeat_ngram_size: int = 0,
) -> list[list[Hypothesis]]:
    """Caption photos; a width of 1 is greedy search.

    A beam keeps the `beam_width` likeliest hypotheses; one that has ended keeps its place,
    and the others go on until all have ended, so the likeliest is never dropped for
    unlikely ones that ended early. <pad>, <start> and <unk> are never chosen. Hypotheses
    that the limit of words cut off rank below those that ended; what ended is ranked by its
    score, or by the decoder, where it `Reranker`.

    Args:
        decoder: the trained decoder.
        features: (N, D) or (N, P, D).
        beam_width: hypotheses kept in work for each photo.
        max_words: a caption's words, at most.
        no_repeat_ngram_size: no run of so many words occurs twice in a caption; 0 allows it.
            Decoders trained on few photos fall into loops (Paulus et al. 2018, 2.5).

    Returns:
        For each photo its hypotheses, best first, `beam_width` of them or, where the
        vocabulary is smaller, fewer.
    """
    found: list[list[Hypothesis]] = []
    for photos in parts(features, max(1, ROWS // beam_width)):
        beams = [_Beam(beam_width, no_repeat_ngram_size) for _ in photos]
        _grow_all(decoder, photos, beams, max_words)
        ranked = [beam.ranked() for beam in beams]
        found += decoder.rerank(photos, ranked) if isinstance(decoder, Reranker) else ranked
    return found[: len(features)]


def parts(features: npt.NDArray[np.float32], size: int) -> Iterator[npt.NDArray[np.float32]]:
    """Split into parts of one size, the last padded: one shape, one compiled step."""
    size = min(size, 1 << max(len(features) - 1, 0).bit_length())
    for start in range(0, len(features), size):
        part = features[start : start + size]
        padding = [(0, size - len(part)), *[(0, 0)] * (features.ndim - 1)]
        yield np.pad(part, padding)


def _grow_all(
    decoder: StepDecoder, features: npt.NDArray[np.float32], beams: list[_Beam], max_words: int
) -> None:
    """Take all beams, one a photo, to their ends together."""
    width = beams[0].width
    # Row `p * width + i` is hypothesis i of photo p.
    state = [np.repeat(array, width, axis=0) for array in decoder.begin(features)]
    words = np.full(len(features) * width, START, np.int32)
    while any(beam.live for beam in beams):
        logits, state = decoder.advance(words, state)
        scores = log_softmax(logits.astype(np.float64))
        origin = np.arange(len(words))
        for photo, beam in enumerate(beams):
            if not beam.live:
                continue
            first = photo * width
            parents = beam.grow(scores[first : first + width], max_words)
            for slot, (parent, (_, ids)) in enumerate(zip(parents, beam.live, strict=False)):
                origin[first + slot] = first + parent
                words[first + slot] = ids[-1]
        state = [array[origin] for array in state]


def log_softmax(logits: LogProbs) -> LogProbs:
    """Log-probabilities over the whole vocabulary, those of the markers then struck out."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    scores: LogProbs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    scores[:, _FORBIDDEN] = -np.inf
    return scores


def _repeating(ids: tuple[int, ...], size: int) -> list[int]:
    """Return the words that would complete an n-gram of `size` words that `ids` has already."""
    prefix = size - 1
    return [
        ids[start + prefix]
        for start in range(len(ids) - prefix)
        if ids[start : start + prefix] == ids[len(ids) - prefix :]
    ]


def _largest(values: LogProbs, count: int) -> npt.NDArray[Any]:
    """Positions of the `count` largest values, largest first, the earlier of equals first."""
    count = min(count, len(values))
    candidates = np.sort(np.argpartition(-values, count - 1)[:count])
    return candidates[np.argsort(-values[candidates], kind="stable")]
