"""Baselines: what a score is worth, from captions that no model made."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.metrics.ngrams import Tokens
from pipeline.metrics.scorer import METRICS, Scorer, Scores

_SEED = 0  # equal captions, equal baselines
_DRAWS = 5  # of what chance decides; their mean is reported
_CONSTANTS = 50  # captions tried for the best constant

CorpusScores = dict[str, float]
Groups = Sequence[Sequence[Tokens]]


def best_constant(training: Sequence[Tokens], groups: Groups) -> tuple[str, CorpusScores]:
    """Return the one caption that scores best for all photos, and its scores.

    The floor of a model that says the same of every photo. It is chosen on the photos
    that are scored, which no model may do: of the `_CONSTANTS` training captions whose n-grams
    are in the most photos' references, the one with the greatest sum of BLEU-4 and CIDEr-D.
    By one of the metrics alone another may be better.

    Args:
        training: captions to choose from, as tokens.
        groups: the photos' references, as tokens.
    """
    photos_with: Counter[Tokens] = Counter()
    for group in groups:
        photos_with.update({gram for reference in group for gram in _grams(reference)})
    lengths = [len(reference) for group in groups for reference in group]
    # Shorter ones pay in BLEU for their brevity.
    long_enough = {tuple(t) for t in training if len(t) >= np.median(lengths) - 1}
    common = {
        tokens: sum(photos_with[gram] for gram in _grams(tokens)) / max(len(_grams(tokens)), 1)
        for tokens in long_enough or {()}
    }
    tried = sorted(common, key=lambda tokens: (-common[tokens], tokens))[:_CONSTANTS]
    scorer = Scorer(groups)
    scored = {tokens: scorer.score([tokens] * len(groups)).corpus for tokens in tried}
    best = max(tried, key=lambda tokens: scored[tokens]["BLEU-4"] + scored[tokens]["CIDEr-D"])
    return " ".join(best), scored[best]


def random_captions(training: Sequence[Tokens], groups: Groups) -> CorpusScores:
    """Return what a training caption scores that is drawn anew for each photo."""
    random = np.random.default_rng(_SEED)
    draws = [random.integers(0, len(training), len(groups)) for _ in range(_DRAWS)]
    scorer = Scorer(groups)
    return _mean([scorer.score([training[i] for i in drawn.tolist()]) for drawn in draws])


def human_agreement(groups: Groups) -> CorpusScores | None:
    """Return what one reference scores against the photo's others: the ceiling.

    The mean over which reference it is; None where no photo has two.
    """
    several = [group for group in groups if len(group) > 1]
    if not several:
        return None
    turns = min(len(group) for group in several)
    return _mean(
        [
            Scorer([[*g[:turn], *g[turn + 1 :]] for g in several]).score([g[turn] for g in several])
            for turn in range(turns)
        ]
    )


def shuffled_features(candidates: Sequence[Tokens], groups: Groups) -> CorpusScores | None:
    """Return what captions score against the references of other photos.

    A caption follows from its photo's features alone, so this is what the model scores when
    each photo's features are swapped for another's. None of a single photo.
    """
    photos = len(groups)
    if photos == 1:
        return None
    random = np.random.default_rng(_SEED)
    scorer, swapped = Scorer(groups), []
    for _ in range(_DRAWS):
        order = random.permutation(photos)
        other = np.empty(photos, np.int64)
        other[order] = np.roll(order, 1)  # a single ring: nobody keeps their own
        swapped.append(scorer.score([candidates[i] for i in other.tolist()]))
    return _mean(swapped)


def _mean(scored: Sequence[Scores]) -> CorpusScores:
    corpora: list[Mapping[str, float]] = [scores.corpus for scores in scored]
    return {name: float(np.mean([corpus[name] for corpus in corpora])) for name in METRICS}


def _grams(tokens: Tokens) -> list[Tokens]:
    return [tuple(tokens[i : i + n]) for n in range(1, 5) for i in range(len(tokens) - n + 1)]
