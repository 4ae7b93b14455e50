"""BLEU of a corpus (Papineni et al. 2002), as coco-caption computes it."""

import math
from collections import Counter
from collections.abc import Sequence

MAX_ORDER = 4
Tokens = Sequence[str]


def corpus_bleu(
    candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]
) -> list[float]:
    """Return BLEU-1 to BLEU-4, x100, of a whole corpus.

    n-gram matches are clipped by the most that any one reference has, summed over the
    corpus before dividing, and averaged geometrically with equal weights; the brevity
    penalty compares with the reference closest in length, the shorter one of two as close.
    An order without a single match makes it and the higher ones 0.

    Args:
        candidates: one token list a photo.
        references: the photo's references, one token list each, at least one.

    Raises:
        ValueError: no photo, or other numbers of candidates and of reference lists.
    """
    if not candidates:
        raise ValueError("no candidates to score")
    matches, totals = [0] * MAX_ORDER, [0] * MAX_ORDER
    candidate_length = reference_length = 0
    for candidate, group in zip(candidates, references, strict=True):
        candidate_length += len(candidate)
        reference_length += min(
            (len(reference) for reference in group),
            key=lambda length: (abs(length - len(candidate)), length),
        )
        for order in range(1, MAX_ORDER + 1):
            grams = _ngrams(candidate, order)
            allowed: Counter[Tokens] = Counter()
            for reference in group:
                allowed |= _ngrams(reference, order)
            matches[order - 1] += (grams & allowed).total()
            totals[order - 1] += grams.total()
    penalty = min(0.0, 1 - reference_length / candidate_length) if candidate_length else -math.inf
    scores: list[float] = []
    log_precisions = 0.0
    for order in range(1, MAX_ORDER + 1):
        if matches[order - 1] == 0:
            return scores + [0.0] * (MAX_ORDER + 1 - order)
        log_precisions += math.log(matches[order - 1] / totals[order - 1])
        scores.append(100 * math.exp(penalty + log_precisions / order))
    return scores


def _ngrams(tokens: Tokens, order: int) -> Counter[Tokens]:
    return Counter(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1))
