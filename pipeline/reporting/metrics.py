"""Metrics: what the test split's captions score against its raw references."""

from collections.abc import Mapping, Sequence

from pipeline.reporting.predictions import Prediction
from pipeline.scoring.bleu import corpus_bleu
from pipeline.scoring.tokens import tokenize

Scores = dict[str, float]


def score(predictions: Sequence[Prediction], references: Mapping[str, Sequence[str]]) -> Scores:
    """Score one search's captions of a whole split.

    Args:
        predictions: one a photo.
        references: image_id to the photo's captions as people wrote them.

    Returns:
        BLEU-1 to BLEU-4, x100, and how many different captions there are, x100 a photo.
    """
    candidates = [tokenize(prediction.caption) for prediction in predictions]
    groups = [[tokenize(raw) for raw in references[p.image_id]] for p in predictions]
    scores = {f"BLEU-{n}": s for n, s in enumerate(corpus_bleu(candidates, groups), 1)}
    distinct = len({prediction.caption for prediction in predictions})
    scores["distinct"] = 100 * distinct / len(predictions)
    return {name: round(value, 2) for name, value in scores.items()}
