"""Beam search: from a photo's features to its most likely captions; a width of 1 is greedy."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.captioner.generation.interfaces import (
    Hypothesis,
    LogProbs,
    Reranker,
    StepDecoder,
    rank,
)
from pipeline.text.vocabulary import END, PAD, START, UNK

_NEVER_GENERATED = [PAD, START, UNK]
ROWS_PER_STEP = 256  # hypotheses that one step of the decoder extends


@dataclass
class _Beam:
    """The search for one photo: live hypotheses, best first, and completed ones.

    Attributes:
        width: the number of hypotheses kept, live and completed together.
        no_repeat_ngram_size: see `search`.
        live: the log-probability and the word ids of each hypothesis that is being extended.
        completed: the hypotheses that have ended or were cut off.
    """

    width: int
    no_repeat_ngram_size: int
    live: list[tuple[float, tuple[int, ...]]] = field(default_factory=lambda: [(0.0, ())])
    completed: list[Hypothesis] = field(default_factory=list)

    def extend(self, log_probs: LogProbs, max_words: int) -> list[int]:
        """Extend the live hypotheses by a word; those of `max_words` words can only end.

        Args:
            log_probs: log-probabilities of each live hypothesis' next word, (width, V); changed in
                place.
            max_words: maximum number of words; <end> is not one of them.

        Returns:
            For each hypothesis that is live now, the row of the one that it extends.
        """
        if self.no_repeat_ngram_size:
            for row, (_, ids) in enumerate(self.live):
                log_probs[row, _repeating_words(ids, self.no_repeat_ngram_size)] = -np.inf
        if len(self.live[0][1]) == max_words:
            self._end_all(log_probs)
            return []
        vocabulary_size = log_probs.shape[1]
        live_scores = np.array([score for score, _ in self.live])
        totals = (log_probs[: len(live_scores)] + live_scores[:, None]).ravel()
        extended: list[tuple[float, tuple[int, ...]]] = []
        parents: list[int] = []
        # A completed hypothesis keeps its place in the beam.
        for candidate in _top_k(totals, self.width - len(self.completed)):
            parent, word = divmod(int(candidate), vocabulary_size)
            total, ids = float(totals[candidate]), self.live[parent][1]
            if total == -np.inf:
                break
            if word == END:
                self.completed.append(Hypothesis(ids, total, finished=True))
            else:
                extended.append((total, (*ids, word)))
                parents.append(parent)
        if not extended and not self.completed:  # NaN logits have no best word
            self.completed = [Hypothesis(ids, total, finished=False) for total, ids in self.live]
        self.live = extended
        return parents

    def _end_all(self, log_probs: LogProbs) -> None:
        """Complete all live hypotheses with <end>, whatever its probability.

        Without its cost, half a sentence would be likelier than any whole one. A hypothesis for
        which another word was likelier is cut off.
        """
        best_words = log_probs.argmax(axis=1)
        self.completed += [
            Hypothesis(ids, total + float(log_probs[row, END]), bool(best_words[row] == END))
            for row, (total, ids) in enumerate(self.live)
        ]
        self.live = []

    def ranked(self) -> list[Hypothesis]:
        """Return the completed hypotheses, best first."""
        return rank(self.completed, [hypothesis.score for hypothesis in self.completed])


def search(
    decoder: StepDecoder,
    features: npt.NDArray[np.float32],
    beam_width: int,
    max_words: int,
    *,
    no_repeat_ngram_size: int = 0,
) -> list[list[Hypothesis]]:
    """Caption photos by beam search; a width of 1 is greedy search.

    A beam keeps the `beam_width` most likely hypotheses. One that has ended keeps its place
    while the others go on until all have ended, so the most likely one is never dropped for
    unlikely ones that ended early. <pad>, <start> and <unk> are never chosen. A hypothesis of
    `max_words` words gets an <end> too, and was cut off if another word was likelier. All are
    ranked by their score, or by the decoder if it is a `Reranker`; see `rank`.

    Args:
        decoder: the trained decoder.
        features: (N, D) or (N, P, D).
        beam_width: hypotheses kept for each photo.
        max_words: maximum number of words in a caption; <end> is not one of them.
        no_repeat_ngram_size: no run of this many words occurs twice in a caption; 0 allows it.
            Decoders trained on few photos fall into loops (Paulus et al. 2018, 2.5).

    Returns:
        For each photo its hypotheses, best first: `beam_width` of them, or fewer if the
        vocabulary is smaller.
    """
    results: list[list[Hypothesis]] = []
    for batch in fixed_size_batches(features, max(1, ROWS_PER_STEP // beam_width)):
        beams = [_Beam(beam_width, no_repeat_ngram_size) for _ in batch]
        _run_beams(decoder, batch, beams, max_words)
        ranked = [beam.ranked() for beam in beams]
        results += decoder.rerank(batch, ranked) if isinstance(decoder, Reranker) else ranked
    return results[: len(features)]


def fixed_size_batches(
    features: npt.NDArray[np.float32], size: int
) -> Iterator[npt.NDArray[np.float32]]:
    """Split into batches of one size, the last one padded: one shape, one compiled step."""
    size = min(size, 1 << max(len(features) - 1, 0).bit_length())
    for start in range(0, len(features), size):
        batch = features[start : start + size]
        padding = [(0, size - len(batch)), *[(0, 0)] * (features.ndim - 1)]
        yield np.pad(batch, padding)


def _run_beams(
    decoder: StepDecoder, features: npt.NDArray[np.float32], beams: list[_Beam], max_words: int
) -> None:
    """Extend all beams, one for each photo, until they are complete."""
    width = beams[0].width
    # Row `p * width + i` is hypothesis i of photo p.
    state = [np.repeat(array, width, axis=0) for array in decoder.begin(features)]
    words = np.full(len(features) * width, START, np.int32)
    while any(beam.live for beam in beams):
        logits, state = decoder.advance(words, state)
        log_probs = log_softmax(logits.astype(np.float64))
        origin = np.arange(len(words))
        for photo, beam in enumerate(beams):
            if not beam.live:
                continue
            first = photo * width
            parents = beam.extend(log_probs[first : first + width], max_words)
            for slot, (parent, (_, ids)) in enumerate(zip(parents, beam.live, strict=False)):
                origin[first + slot] = first + parent
                words[first + slot] = ids[-1]
        state = [array[origin] for array in state]


def log_softmax(logits: LogProbs) -> LogProbs:
    """Return log-probabilities over the whole vocabulary; -inf for words never generated."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_probs: LogProbs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    log_probs[:, _NEVER_GENERATED] = -np.inf
    return log_probs


def _repeating_words(ids: tuple[int, ...], size: int) -> list[int]:
    """Return the words that would complete an n-gram of `size` words that `ids` already has."""
    prefix = size - 1
    return [
        ids[start + prefix]
        for start in range(len(ids) - prefix)
        if ids[start : start + prefix] == ids[len(ids) - prefix :]
    ]


def _top_k(values: LogProbs, k: int) -> npt.NDArray[Any]:
    """Return the positions of the `k` largest values, largest first.

    Among equal values, earlier positions come first. NaN is less than any number.
    """
    k = min(k, len(values))
    negated = -values
    threshold = np.partition(negated, k - 1)[k - 1]
    # Not `<=`, which would leave out NaN. Values equal to the k-th largest are all candidates.
    candidates = np.flatnonzero(~(negated > threshold))
    return candidates[np.argsort(negated[candidates], kind="stable")[:k]]
