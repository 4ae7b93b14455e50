"""Logits: what searches and samplings compute from the decoder's scores of the next word."""

import numpy as np
import numpy.typing as npt

from pipeline.captioner.generation.interfaces import Array, LogProbs
from pipeline.text.vocabulary import PAD, START, UNK

# Rows whose exponentials are computed at once: those of 64 rows of 4,500 words fit into a
# processor's cache, which makes the passes over them three times as fast.
BLOCK = 64


def log_sum_exp(logits: Array) -> LogProbs:
    """Return the logarithm of the sum of exponentials of each row of logits (R, V): (R,).

    A word's log-probability is its logit minus this, so that no array of all log-probabilities
    is needed.
    """
    result = np.empty(len(logits))
    for start in range(0, len(logits), BLOCK):
        rows = logits[start : start + BLOCK]
        largest = rows.max(axis=1, keepdims=True)
        exponentials = rows - largest
        np.exp(exponentials, out=exponentials)
        result[start : start + BLOCK] = largest[:, 0] + np.log(
            exponentials.sum(axis=1).astype(np.float64)
        )
    return result


def exclude_special_tokens(logits: npt.NDArray[np.floating]) -> None:
    """Make <pad>, <start> and <unk> impossible in logits (R, V), in place."""
    logits[:, [PAD, START, UNK]] = -np.inf
