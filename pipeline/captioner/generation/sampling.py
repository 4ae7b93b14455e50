"""Sampling: captions drawn at random from what the decoder thinks likely."""

from dataclasses import dataclass
from zlib import crc32

import numpy as np
import numpy.typing as npt

from pipeline.captioner.generation.beam_search import ROWS, log_softmax, parts
from pipeline.captioner.generation.interfaces import Array, Hypothesis, LogProbs, StepDecoder
from pipeline.text.vocabulary import END, PAD, START


@dataclass(frozen=True)
class Sampling:
    """How captions are drawn, word by word.

    Attributes:
        temperature: above 0; below 1 likely words become likelier, above 1 unlikely ones.
        top_k: words that may be drawn, the likeliest (Fan et al. 2018); None is all.
        top_p: the share of probability that those hold which may be drawn, the likeliest
            (Holtzman et al. 2020, "The curious case of neural text degeneration").
        seed: of the draws; with the same one a photo gets the same captions, whatever others
            are captioned beside it.
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
    """Draw captions of photos; <pad>, <start> and <unk> never come out.

    Args:
        decoder: the trained decoder.
        features: (N, D) or (N, P, D).
        count: captions of each photo.
        max_words: a caption's words, at most.
        sampling: how.

    Returns:
        For each photo `count` captions, by falling score; the same one may come twice.
        Their log-probabilities are the decoder's, whatever the temperature.
    """
    found: list[list[Hypothesis]] = []
    for photos in parts(features, max(1, ROWS // count)):
        drawn = _draw(decoder, photos, count, max_words, sampling)
        found += [drawn[row * count : (row + 1) * count] for row in range(len(photos))]
    return [sorted(drawn, key=lambda h: (-h.score, h.ids)) for drawn in found[: len(features)]]


def _draw(
    decoder: StepDecoder,
    features: npt.NDArray[np.float32],
    count: int,
    max_words: int,
    sampling: Sampling,
) -> list[Hypothesis]:
    """Draw `count` captions for each photo, one after another in the list."""
    # Chance of its own for each photo, whatever its place among the others.
    chances = [np.random.default_rng([sampling.seed, crc32(photo)]) for photo in features]
    rows = len(features) * count
    state: list[Array] = [np.repeat(array, count, axis=0) for array in decoder.begin(features)]
    words = np.full(rows, START, np.int32)
    ids: list[npt.NDArray[np.int32]] = []
    totals, ended = np.zeros(rows), np.zeros(rows, bool)
    while len(ids) < max_words and not ended.all():
        logits, state = decoder.advance(words, state)
        scores = log_softmax(logits.astype(np.float64))
        noise = [chance.gumbel(size=(count, scores.shape[1])) for chance in chances]
        words = _choose(scores, sampling, np.concatenate(noise))
        words[ended] = PAD
        totals += np.where(ended, 0.0, scores[np.arange(rows), words])
        ids.append(words)
        ended |= words == END
    columns = np.array(ids).T if ids else np.zeros((rows, 0), np.int32)
    return [
        Hypothesis(tuple(row[row > END].tolist()), float(total), finished=bool(done))
        for row, total, done in zip(columns, totals, ended, strict=True)
    ]


def _choose(scores: LogProbs, sampling: Sampling, gumbel_noise: LogProbs) -> npt.NDArray[np.int32]:
    """Draw a word for each row of log-probabilities."""
    # The likeliest is 0, which stays a number at any temperature, whatever becomes of the others.
    with np.errstate(over="ignore"):
        scaled = (scores - scores.max(axis=1, keepdims=True)) / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < scaled.shape[1]:
        least = np.partition(scaled, -sampling.top_k, axis=1)[:, -sampling.top_k]
        scaled = np.where(scaled >= least[:, None], scaled, -np.inf)
    if sampling.top_p < 1:
        scaled = np.where(_nucleus(scaled, sampling.top_p), scaled, -np.inf)
    # The greatest of log-probabilities with Gumbel noise is a draw from them.
    drawn: npt.NDArray[np.int32] = np.argmax(scaled + gumbel_noise, axis=1).astype(np.int32)
    return drawn


def _nucleus(scaled: LogProbs, top_p: float) -> npt.NDArray[np.bool_]:
    """Tell the likeliest words that hold `top_p` of the probability together."""
    order = np.argsort(-scaled, axis=1, kind="stable")
    shares = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    shares = np.take_along_axis(shares / shares.sum(axis=1, keepdims=True), order, axis=1)
    # Those before which less than that share has gone: at least one.
    kept_in_order = np.cumsum(shares, axis=1) - shares < top_p
    kept: npt.NDArray[np.bool_] = np.zeros(scaled.shape, bool)
    np.put_along_axis(kept, order, kept_in_order, axis=1)
    return kept
