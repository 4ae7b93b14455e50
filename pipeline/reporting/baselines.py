"""Baselines: scores to compare a model's scores with."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.metrics.ngrams import Tokens
from pipeline.metrics.scorer import METRICS, Scorer, Scores

_SEED = 0  # equal captions, equal baselines
_DRAWS = 5  # random draws per baseline; their mean is reported
_CONSTANT_CANDIDATES = 50  # training captions scored as the constant caption

CorpusScores = dict[str, float]

# The baselines have one name each, used in metrics.json, the report and the model card.
CONSTANT_CAPTION = "constant caption"
RANDOM_CAPTIONS = "random captions"
SHUFFLED_FEATURES = "shuffled features"
MODEL_LEAVE_ONE_OUT = "model leave-one-out"
HUMAN_AGREEMENT = "human agreement"

# What each baseline is, for readers of the report and the model card.
EXPLANATIONS: Mapping[str, str] = {
    CONSTANT_CAPTION: (
        "one training caption for every photo: the best-scoring one, chosen with the references "
        "in hand"
    ),
    RANDOM_CAPTIONS: "a random training caption for each photo",
    SHUFFLED_FEATURES: "the model's captions when every photo gets another photo's features",
    MODEL_LEAVE_ONE_OUT: (
        "the model's captions against as many references as human agreement has: one fewer, each "
        "left out in turn"
    ),
    HUMAN_AGREEMENT: "one reference scored against the photo's other references",
}


@dataclass(frozen=True)
class Baseline:
    """Scores to compare a model's scores with.

    Attributes:
        name: one of the names above.
        corpus: METRICS, x100.
        caption: the caption itself, for the constant caption; otherwise empty.
    """

    name: str
    corpus: CorpusScores
    caption: str = ""


def all_baselines(
    scorer: Scorer, training: Sequence[Tokens], candidates: Sequence[Tokens]
) -> list[Baseline]:
    """Return every baseline that these photos allow, in display order.

    Args:
        scorer: scores captions against the photos' references.
        training: the training captions.
        candidates: the model's caption of each photo, for shuffled features.
    """
    constant, constant_corpus = best_constant(training, scorer)
    others = {
        RANDOM_CAPTIONS: random_captions(training, scorer),
        SHUFFLED_FEATURES: shuffled_features(candidates, scorer),
        **leave_one_out(scorer.references.by_image, candidates),
    }
    return [
        Baseline(CONSTANT_CAPTION, constant_corpus, constant),
        *(Baseline(name, corpus) for name, corpus in others.items() if corpus is not None),
    ]


def best_constant(training: Sequence[Tokens], scorer: Scorer) -> tuple[str, CorpusScores]:
    """Return the one caption that scores best for all photos, and its scores.

    A model that ignores its photos can reach this score. The caption is chosen on the photos
    that are scored, which no model may do: among the `_CONSTANT_CANDIDATES` training captions
    whose n-grams appear in the most photos' references, it has the greatest sum of BLEU-4 and
    CIDEr-D. By one of the metrics alone, another caption may be better.

    Args:
        training: captions to choose from, as tokens.
        scorer: scores captions against the photos' references.
    """
    groups = scorer.references.by_image
    photos_with: Counter[Tokens] = Counter()
    for group in groups:
        photos_with.update({gram for reference in group for gram in _ngrams(reference)})
    lengths = [len(reference) for group in groups for reference in group]
    # Shorter captions lose too much to BLEU's brevity penalty.
    min_length = np.median(lengths) - 1
    long_enough = {tuple(tokens) for tokens in training if len(tokens) >= min_length}
    commonness = {
        tokens: sum(photos_with[gram] for gram in _ngrams(tokens)) / max(len(_ngrams(tokens)), 1)
        for tokens in long_enough or {()}
    }
    ranked = sorted(commonness, key=lambda tokens: (-commonness[tokens], tokens))
    corpora = {
        tokens: scorer.score([tokens] * len(groups)).corpus
        for tokens in ranked[:_CONSTANT_CANDIDATES]
    }
    best = max(corpora, key=lambda tokens: corpora[tokens]["BLEU-4"] + corpora[tokens]["CIDEr-D"])
    return " ".join(best), corpora[best]


def random_captions(training: Sequence[Tokens], scorer: Scorer) -> CorpusScores:
    """Return the scores of random training captions, a new one for each photo."""
    random = np.random.default_rng(_SEED)
    n_photos = len(scorer.references.by_image)
    draws = [random.integers(0, len(training), n_photos) for _ in range(_DRAWS)]
    return _mean([scorer.score([training[i] for i in rows.tolist()]) for rows in draws])


def leave_one_out(
    groups: Sequence[Sequence[Tokens]], candidates: Sequence[Tokens]
) -> dict[str, CorpusScores]:
    """Return human agreement and the model's scores beside it, by name.

    In each turn one reference is left out. It is scored against the photo's others, and so is
    the model's caption: scores rise with the number of references, so that only these two are
    comparable. Means over the turns are returned; nothing if no photo has two references.

    Args:
        groups: each photo's references.
        candidates: the model's caption of each photo.
    """
    pairs = [pair for pair in zip(groups, candidates, strict=True) if len(pair[0]) > 1]
    if not pairs:
        return {}
    model, human = [], []
    for turn in range(min(len(group) for group, _ in pairs)):
        scorer = Scorer([[*group[:turn], *group[turn + 1 :]] for group, _ in pairs])
        model.append(scorer.score([candidate for _, candidate in pairs]))
        human.append(scorer.score([group[turn] for group, _ in pairs]))
    return {MODEL_LEAVE_ONE_OUT: _mean(model), HUMAN_AGREEMENT: _mean(human)}


def shuffled_features(candidates: Sequence[Tokens], scorer: Scorer) -> CorpusScores | None:
    """Return the scores of captions against the references of other photos.

    A caption depends on its photo's features alone, so this is the model's score when each
    photo gets another photo's features. None for a single photo.
    """
    n_photos = len(scorer.references.by_image)
    if n_photos == 1:
        return None
    random = np.random.default_rng(_SEED)
    scores = []
    for _ in range(_DRAWS):
        order = random.permutation(n_photos)
        other_photo = np.empty(n_photos, np.int64)
        other_photo[order] = np.roll(order, 1)  # one cycle, so that no photo keeps its own caption
        scores.append(scorer.score([candidates[i] for i in other_photo.tolist()]))
    return _mean(scores)


def _mean(draws: Sequence[Scores]) -> CorpusScores:
    corpora: list[Mapping[str, float]] = [scores.corpus for scores in draws]
    return {name: float(np.mean([corpus[name] for corpus in corpora])) for name in METRICS}


def _ngrams(tokens: Tokens) -> list[Tokens]:
    return [tuple(tokens[i : i + n]) for n in range(1, 5) for i in range(len(tokens) - n + 1)]
