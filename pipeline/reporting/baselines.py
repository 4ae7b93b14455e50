"""Baselines: what a score is worth, from captions that no model made."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.metrics.ngrams import Tokens
from pipeline.metrics.scorer import METRICS, Scorer, Scores

_SEED = 0  # equal captions, equal baselines
_DRAWS = 5  # of what chance decides; their mean is reported
_CONSTANTS = 50  # captions tried for the best constant

CorpusScores = dict[str, float]

# The rows that stand below a model's scores: one name each, wherever they are shown.
CONSTANT_CAPTION = "constant caption"
RANDOM_CAPTIONS = "random captions"
SHUFFLED_FEATURES = "shuffled features"
HUMAN_AGREEMENT = "human agreement"


@dataclass(frozen=True)
class Baseline:
    """Scores that no trained search reached, to compare a model's scores with.

    Attributes:
        name: one of the names above.
        corpus: METRICS, x100.
        caption: the constant caption, for that baseline.
    """

    name: str
    corpus: CorpusScores
    caption: str = ""


def all_baselines(
    scorer: Scorer, training: Sequence[Tokens], candidates: Sequence[Tokens]
) -> list[Baseline]:
    """Return every baseline that these photos allow, in the order in which they are shown.

    Args:
        scorer: of the photos' references.
        training: the training captions.
        candidates: the model's caption of each photo, for shuffled features.
    """
    constant, constant_corpus = best_constant(training, scorer)
    corpora = {
        RANDOM_CAPTIONS: random_captions(training, scorer),
        SHUFFLED_FEATURES: shuffled_features(candidates, scorer),
        HUMAN_AGREEMENT: human_agreement(scorer.references.by_image),
    }
    return [
        Baseline(CONSTANT_CAPTION, constant_corpus, constant),
        *(Baseline(name, corpus) for name, corpus in corpora.items() if corpus is not None),
    ]


def best_constant(training: Sequence[Tokens], scorer: Scorer) -> tuple[str, CorpusScores]:
    """Return the one caption that scores best for all photos, and its scores.

    The floor of a model that says the same of every photo. It is chosen on the photos
    that are scored, which no model may do: of the `_CONSTANTS` training captions whose n-grams
    are in the most photos' references, the one with the greatest sum of BLEU-4 and CIDEr-D.
    By one of the metrics alone another may be better.

    Args:
        training: captions to choose from, as tokens.
        scorer: of the photos' references.
    """
    groups = scorer.references.by_image
    photos_with: Counter[Tokens] = Counter()
    for group in groups:
        photos_with.update({gram for reference in group for gram in _grams(reference)})
    lengths = [len(reference) for group in groups for reference in group]
    # Shorter ones pay in BLEU for their brevity.
    shortest = np.median(lengths) - 1
    long_enough = {tuple(t) for t in training if len(t) >= shortest}
    common = {
        tokens: sum(photos_with[gram] for gram in _grams(tokens)) / max(len(_grams(tokens)), 1)
        for tokens in long_enough or {()}
    }
    tried = sorted(common, key=lambda tokens: (-common[tokens], tokens))[:_CONSTANTS]
    scored = {tokens: scorer.score([tokens] * len(groups)).corpus for tokens in tried}
    best = max(tried, key=lambda tokens: scored[tokens]["BLEU-4"] + scored[tokens]["CIDEr-D"])
    return " ".join(best), scored[best]


def random_captions(training: Sequence[Tokens], scorer: Scorer) -> CorpusScores:
    """Return what a training caption scores that is drawn anew for each photo."""
    random = np.random.default_rng(_SEED)
    photos = len(scorer.references.by_image)
    draws = [random.integers(0, len(training), photos) for _ in range(_DRAWS)]
    return _mean([scorer.score([training[i] for i in drawn.tolist()]) for drawn in draws])


def human_agreement(groups: Sequence[Sequence[Tokens]]) -> CorpusScores | None:
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


def shuffled_features(candidates: Sequence[Tokens], scorer: Scorer) -> CorpusScores | None:
    """Return what captions score against the references of other photos.

    A caption follows from its photo's features alone, so this is what the model scores when
    each photo's features are swapped for another's. None of a single photo.
    """
    photos = len(scorer.references.by_image)
    if photos == 1:
        return None
    random = np.random.default_rng(_SEED)
    swapped = []
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
