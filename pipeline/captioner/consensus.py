"""Consensus: of many hypotheses the one that is most like the others.

Minimum Bayes risk (Kumar and Byrne 2004) with what CIDEr-D measures as the gain, the others
standing for what people might have said: a caption that many likely ones resemble is a safer
answer than the likeliest one, which may stand alone.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.captioner.search import Hypothesis, Steps, search
from pipeline.scoring.likeness import likeness

# Likelihoods of whole captions differ by orders of magnitude; of their words, by this less.
_SHARPNESS = 5.0


def consensus_search(
    decoder: Steps,
    features: npt.NDArray[np.float32],
    beam_width: int,
    max_words: int,
    *,
    repeat_trigrams: bool = True,
) -> list[list[Hypothesis]]:
    """Search with a beam, and put first what is most like the rest of it.

    Args and returns: those of `search`.
    """
    found = search(decoder, features, beam_width, max_words, repeat_trigrams=repeat_trigrams)
    return [by_consensus(hypotheses) for hypotheses in found]


def by_consensus(hypotheses: Sequence[Hypothesis]) -> list[Hypothesis]:
    """Return the hypotheses of a photo, the one most like the others first.

    Those that the limit of words cut off stay behind those that ended.
    """
    scores = np.array([h.score for h in hypotheses])
    shares = np.exp((scores - scores.max()) * _SHARPNESS)
    expected = likeness([h.ids for h in hypotheses]) @ (shares / shares.sum())
    order = sorted(
        range(len(hypotheses)),
        key=lambda i: (-hypotheses[i].finished, -expected[i], -scores[i], hypotheses[i].ids),
    )
    return [hypotheses[i] for i in order]
