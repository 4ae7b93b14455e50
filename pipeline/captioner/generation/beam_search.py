"""Beam search: from a photo's features to its most likely captions; a width of 1 is greedy."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from pipeline.captioner.generation.interfaces import (
    Array,
    Hypothesis,
    Ids,
    LogProbs,
    Positions,
    Reranker,
    StepDecoder,
    rank,
)
from pipeline.text.vocabulary import END, PAD, START, UNK

ROWS_PER_STEP = 2048  # hypotheses that one step of the decoder extends, at most
# Rows whose exponentials are computed at once: those of 64 rows of 4,500 words stay in a
# processor's cache, and the passes over them take a third of the time.
_CACHED_ROWS = 64
_BLOCKS = 128  # of words, whose maxima bound a row's best logits
_ROUNDING = 1e-6  # relative error of a logit that is computed from a log-probability, at most


@dataclass
class _Beams:
    """The search for a batch of photos: live hypotheses and completed ones.

    Live hypotheses are rows: those of a photo are consecutive, best first. All have as many words.

    Attributes:
        completed: the hypotheses of each photo that have ended or were cut off.
        width: the number of hypotheses kept for each photo, live and completed together.
        no_repeat_ngram_size: see `search`.
        ids: the words of each live hypothesis, <start> first, (R, T).
        photos: its photo, (R,), ascending.
        totals: its log-probability, (R,).
    """

    completed: list[list[Hypothesis]]
    width: int
    no_repeat_ngram_size: int
    ids: Ids
    photos: Positions
    totals: LogProbs

    @staticmethod
    def begin(count: int, width: int, no_repeat_ngram_size: int) -> "_Beams":
        """Return the beams of `count` photos: one hypothesis without words for each."""
        return _Beams(
            [[] for _ in range(count)],
            width,
            no_repeat_ngram_size,
            ids=np.full((count, 1), START, np.int32),
            photos=np.arange(count),
            totals=np.zeros(count),
        )

    def extend(self, logits: Array, max_words: int) -> Positions:
        """Extend the live hypotheses by a word; those of `max_words` words can only end.

        Args:
            logits: the logits of each live hypothesis' next word, (R, V); changed in place.
            max_words: maximum number of words; <end> is not one of them.

        Returns:
            For each hypothesis that is live now, the row of the one that it extends.
        """
        # The log-probability of a hypothesis with a next word is the word's logit plus this.
        offsets = self.totals - log_sum_exp(logits)
        exclude_special_tokens(logits)
        if self.no_repeat_ngram_size:
            _exclude_repeats(logits, self.ids[:, 1:], self.no_repeat_ngram_size)
        if self.ids.shape[1] > max_words:
            self._end_all(logits, offsets)
            return self._keep(np.arange(0))
        places = np.array([self.width - len(completed) for completed in self.completed])
        rows, words, totals = _best_extensions(logits, offsets, self.photos, places)
        ended = words == END
        for row, total in zip(rows[ended].tolist(), totals[ended].tolist(), strict=True):
            self._complete(row, total, finished=True)
        self._cut_off_without_extension(rows)
        parents = self._keep(rows[~ended])
        self.ids = np.column_stack([self.ids, words[~ended].astype(np.int32)])
        self.totals = totals[~ended]
        return parents

    def _end_all(self, logits: Array, offsets: LogProbs) -> None:
        """Complete all live hypotheses with <end>, whatever its probability.

        Without its cost, half a sentence would be likelier than any whole one. A hypothesis for
        which another word was likelier is cut off.
        """
        totals = offsets + logits[:, END]
        finished = logits[:, END] >= logits.max(axis=1)
        for row, total in enumerate(totals.tolist()):
            self._complete(row, total, finished=bool(finished[row]))

    def _cut_off_without_extension(self, extended: Positions) -> None:
        """Cut off the hypotheses of photos that got neither a word nor an end: NaN has no best."""
        for photo in np.setdiff1d(self.photos, self.photos[extended]).tolist():
            if not self.completed[photo]:
                for row in np.flatnonzero(self.photos == photo).tolist():
                    self._complete(row, float(self.totals[row]), finished=False)

    def _complete(self, row: int, total: float, *, finished: bool) -> None:
        hypothesis = Hypothesis(tuple(self.ids[row, 1:].tolist()), total, finished)
        self.completed[int(self.photos[row])].append(hypothesis)

    def _keep(self, rows: Positions) -> Positions:
        """Replace the live hypotheses by those of these rows; return the rows."""
        self.ids, self.photos, self.totals = self.ids[rows], self.photos[rows], self.totals[rows]
        return rows


def search(
    decoder: StepDecoder,
    features: npt.NDArray[np.float32],
    beam_width: int,
    max_words: int,
    *,
    no_repeat_ngram_size: int = 0,
    advance: Callable[[int], object] = lambda _: None,
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
        advance: called after each batch with the number of its photos.

    Returns:
        For each photo its hypotheses, best first: `beam_width` of them, or fewer if the
        vocabulary is smaller.
    """
    results: list[list[Hypothesis]] = []
    for batch in photo_batches(features, beam_width):
        beams = _Beams.begin(len(batch), beam_width, no_repeat_ngram_size)
        _run_beams(decoder, batch, beams, max_words)
        ranked = [rank(beam, [h.score for h in beam]) for beam in beams.completed]
        results += decoder.rerank(batch, ranked) if isinstance(decoder, Reranker) else ranked
        advance(len(batch))
    return results


def photo_batches(
    features: npt.NDArray[np.float32], rows_per_photo: int
) -> Iterator[npt.NDArray[np.float32]]:
    """Split into batches of about equal size, each of at most `ROWS_PER_STEP` rows or one photo."""
    size = max(1, ROWS_PER_STEP // rows_per_photo)
    if len(features):
        yield from np.array_split(features, -(-len(features) // size))


def _run_beams(
    decoder: StepDecoder, features: npt.NDArray[np.float32], beams: _Beams, max_words: int
) -> None:
    """Extend all beams until they are complete."""
    state, parents = decoder.begin(features), beams.photos
    while len(parents):
        logits, state = decoder.advance(beams.ids, beams.photos, parents, state)
        parents = beams.extend(logits, max_words)


def log_sum_exp(logits: Array) -> LogProbs:
    """Return the logarithm of the sum of exponentials of each row of logits (R, V): (R,).

    A word's log-probability is its logit minus this, so that no array of all log-probabilities
    is needed.
    """
    result = np.empty(len(logits))
    for start in range(0, len(logits), _CACHED_ROWS):
        rows = logits[start : start + _CACHED_ROWS]
        largest = rows.max(axis=1, keepdims=True)
        exponentials = rows - largest
        np.exp(exponentials, out=exponentials)
        result[start : start + _CACHED_ROWS] = largest[:, 0] + np.log(
            exponentials.sum(axis=1).astype(np.float64)
        )
    return result


def exclude_special_tokens(logits: npt.NDArray[np.floating]) -> None:
    """Make <pad>, <start> and <unk> impossible in logits (R, V), in place."""
    logits[:, [PAD, START, UNK]] = -np.inf


def _exclude_repeats(logits: Array, ids: Ids, size: int) -> None:
    """Make the words impossible that would complete an n-gram that the hypothesis already has.

    Args:
        logits: the logits of each hypothesis' next word, (R, V); changed in place.
        ids: the words of each hypothesis, (R, T).
        size: n.
    """
    prefix, n_words = size - 1, ids.shape[1]
    for start in range(n_words - prefix):
        repeats = (ids[:, start : start + prefix] == ids[:, n_words - prefix :]).all(axis=1)
        rows = np.flatnonzero(repeats)
        logits[rows, ids[rows, start + prefix]] = -np.inf


def _best_extensions(
    logits: Array, offsets: LogProbs, photos: Positions, counts: Positions
) -> tuple[Positions, Positions, LogProbs]:
    """Return the most likely extensions of each photo's hypotheses by a word.

    Impossible words, and those of rows with NaN, are none.

    Args:
        logits: the logits of each hypothesis' next word, (R, V).
        offsets: what makes a word's logit the log-probability of the extension, (R,).
        photos: the photo of each hypothesis, (R,), ascending.
        counts: the number of extensions to find for each photo.

    Returns:
        The row that each extends, its word, and its log-probability: photo by photo, best first.
        Among equally likely ones the earlier row, then the earlier word comes first.
    """
    thresholds = _thresholds(logits, offsets, photos, int(counts.max()))
    positions = np.flatnonzero(logits >= thresholds[:, None])
    rows, words = np.divmod(positions, logits.shape[1])
    totals = offsets[rows] + logits[rows, words]
    order = np.lexsort((-totals, photos[rows]))  # stable
    ordered_photos = photos[rows][order]
    ranks = np.arange(len(order)) - np.searchsorted(ordered_photos, ordered_photos)
    best = order[ranks < counts[ordered_photos]]
    return rows[best], words[best], totals[best]


def _thresholds(logits: Array, offsets: LogProbs, photos: Positions, count: int) -> Array:
    """Return a logit for each row, below which no word is among its photo's `count` best.

    The `count`-th largest of the maxima of blocks of words is a lower bound of the `count`-th
    largest logit, and takes a tenth of the time of sorting even a part of the logits.
    """
    # Negated, so that NaN comes last.
    losses = -(_block_maxima(logits) + offsets[:, None])
    largest_losses = np.full(len(logits), np.inf)
    starts = np.flatnonzero(np.diff(photos, prepend=-1))
    for first, end in pairwise([*starts.tolist(), len(photos)]):
        photo_losses = losses[first:end].ravel()
        if len(photo_losses) >= count:
            largest_losses[first:end] = np.partition(photo_losses, count - 1)[count - 1]
    thresholds = -np.fmin(largest_losses, np.inf) - offsets  # NaN: fewer than `count` numbers
    thresholds -= _ROUNDING * (1 + np.abs(thresholds))
    lowest = np.finfo(logits.dtype).min  # more than the -inf of impossible words
    result: Array = np.maximum(thresholds, lowest).astype(logits.dtype)
    return result


def _block_maxima(logits: Array) -> Array:
    """Return the largest logit (R, B) in each of about `_BLOCKS` blocks of words."""
    n_rows, n_words = logits.shape
    size = n_words // _BLOCKS
    if size < 2:  # noqa: PLR2004  (nothing to gain)
        return logits
    whole = size * _BLOCKS
    # A block has every `_BLOCKS`-th word: frequent words, which have low ids, are in different
    # blocks, and a maximum over the middle axis is the fastest.
    maxima = logits[:, :whole].reshape(n_rows, size, _BLOCKS).max(axis=1)
    remainder = logits[:, whole:].max(axis=1, keepdims=True, initial=-np.inf)
    return np.concatenate([maxima, remainder], axis=1)
