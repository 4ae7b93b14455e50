"""Sampling: captions drawn at random from the decoder's distribution."""

from dataclasses import dataclass
from zlib import crc32

import numpy as np
import numpy.typing as npt

from pipeline.captioner.generation.beam_search import (
    exclude_special_tokens,
    log_sum_exp,
    photo_batches,
)
from pipeline.captioner.generation.interfaces import Array, Hypothesis, Ids, StepDecoder
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
    for batch in photo_batches(features, count):
        samples = _sample_batch(decoder, batch, count, max_words, sampling)
        captions += [samples[row * count : (row + 1) * count] for row in range(len(batch))]
    return [sorted(hypotheses, key=lambda h: (-h.score, h.ids)) for hypotheses in captions]


def _sample_batch(
    decoder: StepDecoder,
    features: npt.NDArray[np.float32],
    count: int,
    max_words: int,
    sampling: Sampling,
) -> list[Hypothesis]:
    """Sample `count` captions for each photo; the captions of a photo are consecutive."""
    n_samples = len(features) * count
    uniforms = _draw_uniforms(features, count, max_words + 1, sampling.seed)
    ids = np.full((n_samples, max_words + 1), PAD, np.int32)
    ids[:, 0] = START
    totals, finished = np.zeros(n_samples), np.zeros(n_samples, bool)
    live = np.arange(n_samples)
    parents = photos = live // count
    state = decoder.begin(features)
    for position in range(max_words + 1):  # one more than words, for <end>
        logits, state = decoder.advance(ids[live, : position + 1], photos[live], parents, state)
        normalizers = log_sum_exp(logits)
        exclude_special_tokens(logits)
        words = _draw_words(logits, sampling, uniforms[position, live])
        ended = words == END
        at_limit = position == max_words
        # What is drawn in place of <end> at the limit is cut off.
        scored = np.full_like(words, END) if at_limit else words
        totals[live] += logits[np.arange(len(live)), scored] - normalizers
        finished[live] = ended
        parents = np.flatnonzero(~ended)
        live = live[parents]
        if at_limit or not len(live):
            break
        ids[live, position + 1] = words[parents]
    return [
        Hypothesis(tuple(row[row > END].tolist()), total, is_finished)
        for row, total, is_finished in zip(ids, totals.tolist(), finished.tolist(), strict=True)
    ]


def _draw_uniforms(
    features: npt.NDArray[np.float32], count: int, steps: int, seed: int
) -> npt.NDArray[np.float64]:
    """Draw a number in [0, 1) for each step and each of `count` samples of each photo.

    Each photo has a generator of its own, so its position in the batch does not matter.

    Returns:
        (steps, photos x count).
    """
    generators = [np.random.default_rng([seed, crc32(photo.tobytes())]) for photo in features]
    numbers = [generator.random((steps, count)) for generator in generators]
    return np.concatenate(numbers, axis=1)


def _draw_words(logits: Array, sampling: Sampling, uniforms: npt.NDArray[np.float64]) -> Ids:
    """Draw a word for each row of logits (R, V) by a number in [0, 1) for each, (R,)."""
    # The largest becomes 0, which stays finite at any temperature; the others may overflow.
    scaled = logits - logits.max(axis=1, keepdims=True)
    with np.errstate(over="ignore"):
        scaled /= max(sampling.temperature, float(np.finfo(scaled.dtype).tiny))
    if sampling.top_k is not None and sampling.top_k < scaled.shape[1]:
        threshold = np.partition(scaled, -sampling.top_k, axis=1)[:, -sampling.top_k]
        scaled = np.where(scaled >= threshold[:, None], scaled, -np.inf)
    if sampling.top_p < 1:
        scaled = np.where(_nucleus(scaled, sampling.top_p), scaled, -np.inf)
    # Inverse transform sampling: one random number for a word, not one for each possible word.
    cumulative = np.cumsum(np.exp(scaled, out=scaled), axis=1, dtype=np.float64)
    largest = cumulative[:, -1]
    thresholds = np.minimum(uniforms * largest, np.nextafter(largest, 0))
    words: Ids = np.argmax(cumulative > thresholds[:, None], axis=1).astype(np.int32)
    return words


def _nucleus(scaled: Array, top_p: float) -> npt.NDArray[np.bool_]:
    """Return a mask of the most likely words that together have `top_p` of the probability."""
    order = np.argsort(-scaled, axis=1, kind="stable")
    probs = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probs = np.take_along_axis(probs / probs.sum(axis=1, keepdims=True), order, axis=1)
    # A word is in the nucleus if the words before it have less than `top_p`: at least one is.
    mask_in_order = np.cumsum(probs, axis=1) - probs < top_p
    mask: npt.NDArray[np.bool_] = np.zeros(scaled.shape, bool)
    np.put_along_axis(mask, order, mask_in_order, axis=1)
    return mask
