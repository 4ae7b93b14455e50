"""Metrics: what a model's captions of a split score, and what has to stand beside that."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.metrics.meteor import meteor
from pipeline.metrics.ngrams import Tokens
from pipeline.metrics.scorer import METRICS, Scorer, Scores
from pipeline.metrics.significance import Interval, bootstrap_intervals
from pipeline.metrics.tokenizer import tokenize
from pipeline.reporting.baselines import (
    HUMAN_AGREEMENT,
    RANDOM_CAPTIONS,
    SHUFFLED_FEATURES,
    Baseline,
    CorpusScores,
    all_baselines,
)
from pipeline.reporting.predictions import Prediction
from pipeline.text.vocabulary import Vocabulary

# Of CIDEr-D: a model that looks loses nearly all of it when features are swapped.
_SHUFFLED_SHARE = 0.5
_SEVERAL = 2  # seeds, of which a deviation can be told


@dataclass(frozen=True)
class SearchMetrics:
    """What one search's captions score.

    Attributes:
        predictions: one a photo.
        scores: of each caption.
        corpus: METRICS of all together, x100.
        intervals: see `significance.bootstrap_intervals`.
        meteor: METEOR 1.5, x100; None without its Java.
        distinct: different captions, % of all.
        words_used: different words of the vocabulary in the captions, % of it.
        copied: captions that are a training caption, % of all.
        mean_length: words a caption.
        unfinished: captions that the limit of words ended, % of all.
    """

    predictions: Sequence[Prediction]
    scores: Scores
    corpus: CorpusScores
    intervals: dict[str, Interval]
    meteor: float | None
    distinct: float
    words_used: float
    copied: float
    mean_length: float
    unfinished: float


@dataclass(frozen=True)
class Spread:
    """Scores of several trainings: their mean and their deviation, that of a sample."""

    mean: float
    deviation: float

    @staticmethod
    def of(scores: Sequence[float]) -> "Spread":
        """Return those of two scores or more."""
        return Spread(statistics.mean(scores), statistics.stdev(scores))


@dataclass(frozen=True)
class Evaluation:
    """A model's captions of a split, scored.

    Attributes:
        image_ids: the photos, as each search's predictions have them.
        references: image_id to the photo's captions as people wrote them.
        searches: by name; the first is greedy.
        primary_search: the search that figures without a name are of.
        baselines: see `baselines.all_baselines`.
        unknown_words: words of the references that are not in the vocabulary, %.
        perplexity: of the references' words and their ends, to the model; of several decoders
            the geometric mean.
        provenance: what made all this: names and fingerprints.
        detected: image_id to the words that were detected in the photo, those that tell most first.
        seeds: where there are several, what each one's decoder scores alone: seed to search
            to METRICS.
    """

    image_ids: Sequence[str]
    references: Mapping[str, Sequence[str]]
    searches: Mapping[str, SearchMetrics]
    primary_search: str
    baselines: Sequence[Baseline]
    unknown_words: float
    perplexity: float
    provenance: Mapping[str, str]
    detected: Mapping[str, Sequence[str]] = field(default_factory=dict)
    seeds: Mapping[int, Mapping[str, CorpusScores]] = field(default_factory=dict)

    @property
    def over_seeds(self) -> dict[str, dict[str, Spread]]:
        """Each search's scores over the seeds, by metric; nothing where there is but one."""
        if len(self.seeds) < _SEVERAL:
            return {}
        return {
            search: {
                metric: Spread.of([scores[search][metric] for scores in self.seeds.values()])
                for metric in METRICS
            }
            for search in next(iter(self.seeds.values()))
        }

    def baseline(self, name: str) -> CorpusScores | None:
        """Return a baseline's scores; None where these photos do not allow it."""
        return next((row.corpus for row in self.baselines if row.name == name), None)

    @property
    def shuffled_features(self) -> CorpusScores | None:
        """That baseline; None where there is but one photo."""
        return self.baseline(SHUFFLED_FEATURES)

    @property
    def human_agreement(self) -> CorpusScores | None:
        """That baseline; None where no photo has two references."""
        return self.baseline(HUMAN_AGREEMENT)

    @property
    def uses_image(self) -> bool:
        """Whether captions are of their photos: scores fall when features are swapped."""
        shuffled = self.shuffled_features
        if shuffled is None:
            return True
        return shuffled["CIDEr-D"] < _SHUFFLED_SHARE * self.primary.corpus["CIDEr-D"]

    @property
    def primary(self) -> SearchMetrics:
        """The primary search's metrics."""
        return self.searches[self.primary_search]

    def as_json(self) -> dict[str, Any]:
        """Return everything but the captions themselves.

        The numbers at the top are the dozen that `dvc metrics` shows; it passes over lists,
        so that the rest, "details", is in one.
        """
        flat: dict[str, float | None] = {
            **self.primary.corpus,
            "CIDEr-D greedy": self.searches["greedy"].corpus["CIDEr-D"],
            **{
                f"CIDEr-D {row.name}": row.corpus["CIDEr-D"]
                for row in self.baselines
                if row.name != RANDOM_CAPTIONS
            },
            "distinct": self.primary.distinct,
            "perplexity": self.perplexity,
        }
        details = {
            "photos": len(self.image_ids),
            "searches": [_search_json(name, found) for name, found in self.searches.items()],
            "primary_search": self.primary_search,
            "baselines": [_baseline_json(row) for row in self.baselines],
            "seeds": [
                {"seed": seed, "search": search, **_rounded(corpus)}
                for seed, scores in self.seeds.items()
                for search, corpus in scores.items()
            ],
            "over_seeds": [
                {"search": search, **{metric: _rounded(asdict(s)) for metric, s in row.items()}}
                for search, row in self.over_seeds.items()
            ],
            "unknown_words": round(self.unknown_words, 2),
            "provenance": dict(self.provenance),
        }
        return {**_rounded(flat), "details": [details]}


def evaluate(
    predictions: Mapping[str, Sequence[Prediction]],
    primary_search: str,
    references: Mapping[str, Sequence[str]],
    training: Sequence[str],
    vocabulary: Vocabulary,
    clean_references: Sequence[str],
    perplexity: float,
    provenance: Mapping[str, str],
    detected: Mapping[str, Sequence[str]],
    by_seed: Mapping[int, Mapping[str, Sequence[Prediction]]] | None = None,
) -> Evaluation:
    """Score every search's captions, and what they are to be compared with.

    Args:
        predictions: search to its captions, of the same photos in the same order.
        primary_search: one of the searches.
        references: image_id to the photo's captions as people wrote them.
        training: captions that the model learned from, as people wrote them.
        vocabulary: of the model.
        clean_references: the references as the model would learn them.
        perplexity: see `Evaluation`.
        provenance: see `Evaluation`.
        detected: see `Evaluation`.
        by_seed: where there are several, what each one's decoder says alone: seed to search
            to its captions, of the same photos in the same order.
    """
    image_ids = [prediction.image_id for prediction in predictions[primary_search]]
    groups = [[tokenize(raw) for raw in references[image_id]] for image_id in image_ids]
    learned = [tokenize(raw) for raw in training]
    scorer = Scorer(groups)
    searches = {
        name: _search(found, scorer, learned, vocabulary) for name, found in predictions.items()
    }
    return Evaluation(
        image_ids=image_ids,
        references={image_id: references[image_id] for image_id in image_ids},
        searches=searches,
        primary_search=primary_search,
        baselines=all_baselines(
            scorer, learned, [tokenize(p.caption) for p in predictions[primary_search]]
        ),
        unknown_words=_unknown(clean_references, vocabulary),
        perplexity=perplexity,
        provenance=provenance,
        detected=detected,
        seeds={
            seed: {name: _corpus(found, scorer) for name, found in of_seed.items()}
            for seed, of_seed in (by_seed or {}).items()
        },
    )


def _corpus(predictions: Sequence[Prediction], scorer: Scorer) -> CorpusScores:
    return scorer.score([tokenize(prediction.caption) for prediction in predictions]).corpus


def _search(
    predictions: Sequence[Prediction],
    scorer: Scorer,
    learned: Sequence[Tokens],
    vocabulary: Vocabulary,
) -> SearchMetrics:
    candidates = [tokenize(prediction.caption) for prediction in predictions]
    scores = scorer.score(candidates)
    words = {word for prediction in predictions for word in prediction.caption.split()}
    known = {tuple(tokens) for tokens in learned}
    photos = len(predictions)
    return SearchMetrics(
        predictions=predictions,
        scores=scores,
        corpus=scores.corpus,
        intervals=bootstrap_intervals(scores),
        meteor=meteor(candidates, scorer.references.by_image),
        distinct=100 * len({p.caption for p in predictions}) / photos,
        words_used=100 * len(words) / max(len(vocabulary.words), 1),
        copied=100 * sum(tuple(tokens) in known for tokens in candidates) / photos,
        mean_length=sum(len(p.caption.split()) for p in predictions) / photos,
        unfinished=100 * sum(not p.finished for p in predictions) / photos,
    )


def _unknown(texts: Sequence[str], vocabulary: Vocabulary) -> float:
    words = Counter(word for text in texts for word in text.split())
    unknown = sum(count for word, count in words.items() if word not in vocabulary.ids)
    return 100 * unknown / max(words.total(), 1)


def _search_json(name: str, found: SearchMetrics) -> dict[str, Any]:
    return {
        "name": name,
        **_rounded(found.corpus),
        "METEOR": "n/a" if found.meteor is None else round(found.meteor, 2),
        "intervals": {
            metric: [round(low, 2), round(high, 2)]
            for metric, (low, high) in found.intervals.items()
        },
        **_rounded(
            {
                "distinct": found.distinct,
                "words_used": found.words_used,
                "copied": found.copied,
                "mean_length": found.mean_length,
                "unfinished": found.unfinished,
            }
        ),
    }


def _baseline_json(baseline: Baseline) -> dict[str, Any]:
    caption = {"caption": baseline.caption} if baseline.caption else {}
    return {"name": baseline.name, **caption, **_rounded(baseline.corpus)}


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: round(value, 2) if isinstance(value, float) else value for name, value in row.items()
    }
