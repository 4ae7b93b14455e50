"""Perplexity with a vocabulary that lacks words of the text."""

import math


def adjusted_perplexity(loss: float, unknown_share: float, unknown_words: int) -> float:
    """Return the perplexity if all unknown words share the probability of <unk> evenly.

    Ueberla (1994), "Analysing a simple language model: some general conclusions for language
    models for speech recognition". Counted as a word of its own, <unk> would be easy to predict,
    so that a smaller vocabulary would seem better.

    Args:
        loss: mean negative log-likelihood of a token, in nats, with <unk> for unknown words.
        unknown_share: share of <unk> in these tokens, 0 to 1.
        unknown_words: number of different words that <unk> stands for in the text.
    """
    return math.exp(loss + unknown_share * math.log(max(unknown_words, 1)))
