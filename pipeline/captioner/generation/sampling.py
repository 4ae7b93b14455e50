"""Sampling: captions drawn at random from the decoder's distribution."""

from dataclasses import dataclass
from zlib import crc32

import numpy as np
import numpy.typing as npt

from pipeline.captioner.generation.beam_search import (
    ROWS_PER_STEP,
    fixed_size_batches,
    log_softmax,
)
from pipeline.captioner.generation.interfaces import Array, Hypothesis, LogProbs, StepDecoder
from pipeline.text.vocabulary import END, PAD, START


@dataclass(frozen=True)
class Sampling:
    """The settings of sampling, which draws captions word by word.

    Attributes:
        temperature: above 0; below 1 it makes likely words more likely, above 1 less likely.
        top_k: draw from this many of the most likely words (Fan et al. 2018); None: from all words.
        top_p: draw from the most likely words that together have this share of the probability
            (Holtzman et al. 2020, "The curious case of neural text degeneration").
        seed: seed of the random numbers. With the same seed, a photo gets the same captions in
            every batch.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    seed: int = 0


def sample(
    decoder: StepDecoder,
    features: npt.NDArray[np.float32],
    count: int,
    max_words: int,
    sampling: Sampling,
) -> list[list[Hypothesis]]:
    """Sample captions for photos; <pad>, <start> and <unk> are never drawn.

    Args:
        decoder: the trained decoder.
        features: (N, D) or (N, P, D).
        count: captions per photo.
        max_words: maximum number of words in a caption; <end> is not one of them.
        sampling: the settings.

    Returns:
        For each photo `count` captions, by descending score; a caption may occur more than once.
        Their log-probabilities are those of the decoder, whatever the temperature.
    """
    captions: list[list[Hypothesis]] = []
    for batch in fixed_size_batches(features, max(1, ROWS_PER_STEP // count)):
        samples = _sample_batch(decoder, batch, count, max_words, sampling)
        captions += [samples[row * count : (row + 1) * count] for row in range(len(batch))]
    return [
        sorted(hypotheses, key=lambda h: (-h.score, h.ids))
        for hypotheses in captions[: len(features)]
    ]


def _sample_batch(
    decoder: StepDecoder,
    features: npt.NDArray[np.float32],
    count: int,
    max_words: int,
    sampling: Sampling,
) -> list[Hypothesis]:
    """Sample `count` captions for each photo; the captions of a photo are consecutive."""
    # Each photo has a generator of its own, so its position in the batch does not matter.
    generators = [np.random.default_rng([sampling.seed, crc32(photo)]) for photo in features]
    rows = len(features) * count
    state: list[Array] = [np.repeat(array, count, axis=0) for array in decoder.begin(features)]
    words = np.full(rows, START, np.int32)
    ids: list[npt.NDArray[np.int32]] = []
    totals, ended = np.zeros(rows), np.zeros(rows, bool)
    for position in range(max_words + 1):  # one more than words, for <end>
        logits, state = decoder.advance(words, state)
        log_probs = log_softmax(logits.astype(np.float64))
        noise = [generator.gumbel(size=(count, log_probs.shape[1])) for generator in generators]
        words = _draw_words(log_probs, sampling, np.concatenate(noise))
        words[ended] = PAD
        at_limit = position == max_words
        # What is drawn in place of <end> at the limit is cut off.
        scored = np.full_like(words, END) if at_limit else words
        totals += np.where(ended, 0.0, log_probs[np.arange(rows), scored])
        if not at_limit:
            ids.append(words)
        ended |= words == END
        if ended.all():
            break
    captions = np.array(ids).T
    return [
        Hypothesis(tuple(row[row > END].tolist()), float(total), finished=bool(finished))
        for row, total, finished in zip(captions, totals, ended, strict=True)
    ]


def _draw_words(
    log_probs: LogProbs, sampling: Sampling, gumbel_noise: LogProbs
) -> npt.NDArray[np.int32]:
    """Draw a word for each row of log-probabilities."""
    # The largest becomes 0, which stays finite at any temperature; the others may overflow.
    with np.errstate(over="ignore"):
        scaled = (log_probs - log_probs.max(axis=1, keepdims=True)) / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < scaled.shape[1]:
        threshold = np.partition(scaled, -sampling.top_k, axis=1)[:, -sampling.top_k]
        scaled = np.where(scaled >= threshold[:, None], scaled, -np.inf)
    if sampling.top_p < 1:
        scaled = np.where(_nucleus(scaled, sampling.top_p), scaled, -np.inf)
    # Gumbel-max trick: the argmax of log-probabilities plus Gumbel noise is a draw from them.
    words: npt.NDArray[np.int32] = np.argmax(scaled + gumbel_noise, axis=1).astype(np.int32)
    return words


def _nucleus(scaled: LogProbs, top_p: float) -> npt.NDArray[np.bool_]:
    """Return a mask of the most likely words that together have `top_p` of the probability."""
    order = np.argsort(-scaled, axis=1, kind="stable")
    probs = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probs = np.take_along_axis(probs / probs.sum(axis=1, keepdims=True), order, axis=1)
    # A word is in the nucleus if the words before it have less than `top_p`: at least one is.
    mask_in_order = np.cumsum(probs, axis=1) - probs < top_p
    mask: npt.NDArray[np.bool_] = np.zeros(scaled.shape, bool)
    np.put_along_axis(mask, order, mask_in_order, axis=1)
    return mask
