"""Evaluation: the scores of a model's captions of a split, and the baselines to compare with."""

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
from pipeline.reporting import evidence
from pipeline.reporting.baselines import (
    HUMAN_AGREEMENT,
    MODEL_LEAVE_ONE_OUT,
    RANDOM_CAPTIONS,
    SHUFFLED_FEATURES,
    Baseline,
    CorpusScores,
    all_baselines,
)
from pipeline.reporting.nearest_captions import NearestCaption, find_nearest
from pipeline.reporting.predictions import Prediction
from pipeline.text.vocabulary import Vocabulary

_MIN_SEEDS = 2  # a standard deviation needs two


@dataclass(frozen=True)
class SearchMetrics:
    """The scores and statistics of one search's captions.

    Attributes:
        predictions: one per photo.
        scores: the scores of each caption.
        corpus: METRICS over all captions, x100.
        intervals: 95 % interval of each metric, see `significance.bootstrap_intervals`.
        meteor: METEOR 1.5, x100; None without its Java.
        distinct: share of different captions, %.
        words_used: share of the vocabulary that the captions use, %.
        copied: share of captions that are a training caption, %.
        mean_length: words per caption.
        unfinished: share of captions cut off at the word limit, %.
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
    """Mean and sample standard deviation of the scores of several trainings."""

    mean: float
    deviation: float

    @staticmethod
    def from_scores(scores: Sequence[float]) -> "Spread":
        """Return mean and deviation of at least two scores."""
        return Spread(statistics.mean(scores), statistics.stdev(scores))


@dataclass(frozen=True)
class Evaluation:
    """The scores of a model's captions of a split.

    Attributes:
        image_ids: the photos, in the order of each search's predictions.
        references: image_id to the photo's raw captions.
        searches: name to metrics; greedy search comes first.
        primary_search: the search whose scores stand for the model.
        baselines: see `baselines.all_baselines`.
        unknown_words: share of the references' words that are not in the vocabulary, %.
        perplexity: the model's perplexity on the references' words and end marks, where unknown
            words share the probability of <unk>; for an ensemble, the geometric mean over its
            decoders.
        provenance: names and fingerprints of the inputs.
        detected: image_id to the words detected in the photo, the most informative first.
        nearest: for each photo, the training caption nearest to the primary search's caption.
        seeds: with several seeds, the scores of each seed's decoder alone: seed to search to
            METRICS.
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
    nearest: Sequence[NearestCaption] = ()
    seeds: Mapping[int, Mapping[str, CorpusScores]] = field(default_factory=dict)

    @property
    def over_seeds(self) -> dict[str, dict[str, Spread]]:
        """Each search's spread over the seeds, by metric; empty with a single seed."""
        if len(self.seeds) < _MIN_SEEDS:
            return {}
        return {
            search: {
                metric: Spread.from_scores(
                    [scores[search][metric] for scores in self.seeds.values()]
                )
                for metric in METRICS
            }
            for search in next(iter(self.seeds.values()))
        }

    def baseline(self, name: str) -> CorpusScores | None:
        """Return a baseline's scores; None if these photos do not allow it."""
        return next((row.corpus for row in self.baselines if row.name == name), None)

    @property
    def shuffled_features(self) -> CorpusScores | None:
        """The baseline's scores; None for a single photo."""
        return self.baseline(SHUFFLED_FEATURES)

    @property
    def human_agreement(self) -> CorpusScores | None:
        """The baseline's scores; None if no photo has two references."""
        return self.baseline(HUMAN_AGREEMENT)

    @property
    def model_leave_one_out(self) -> CorpusScores | None:
        """The model's scores against as many references as human agreement has."""
        return self.baseline(MODEL_LEAVE_ONE_OUT)

    @property
    def has_enough_photos(self) -> bool:
        """Whether there are enough photos to say something about the model."""
        return evidence.has_enough_photos(len(self.image_ids))

    @property
    def uses_image(self) -> bool | None:
        """Whether captions depend on their photos; None if that cannot be told."""
        shuffled = self.shuffled_features
        return evidence.uses_image(
            self.primary.intervals["CIDEr-D"],
            None if shuffled is None else shuffled["CIDEr-D"],
            len(self.image_ids),
        )

    @property
    def primary(self) -> SearchMetrics:
        """The primary search's metrics."""
        return self.searches[self.primary_search]

    def as_json(self) -> dict[str, Any]:
        """Return everything except the captions.

        `dvc metrics` shows the numbers at the top. It skips lists, so the rest is in a list
        named "details".
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
            "searches": [_search_json(name, search) for name, search in self.searches.items()],
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
    """Score every search's captions and the baselines.

    Args:
        predictions: search to its captions; all have the same photos in the same order.
        primary_search: one of the searches.
        references: image_id to the photo's raw captions.
        training: the raw training captions.
        vocabulary: the model's vocabulary.
        clean_references: the references, cleaned like training captions.
        perplexity: see `Evaluation`.
        provenance: see `Evaluation`.
        detected: see `Evaluation`.
        by_seed: with several seeds, the captions of each seed's decoder alone: seed to search
            to captions, of the same photos in the same order.
    """
    image_ids = [prediction.image_id for prediction in predictions[primary_search]]
    training_tokens = [tokenize(raw) for raw in training]
    scorer = Scorer([[tokenize(raw) for raw in references[image_id]] for image_id in image_ids])
    return Evaluation(
        image_ids=image_ids,
        references={image_id: references[image_id] for image_id in image_ids},
        searches={
            name: _search_metrics(captions, scorer, training_tokens, vocabulary)
            for name, captions in predictions.items()
        },
        primary_search=primary_search,
        baselines=all_baselines(
            scorer, training_tokens, [tokenize(p.caption) for p in predictions[primary_search]]
        ),
        unknown_words=_unknown_share(clean_references, vocabulary),
        perplexity=perplexity,
        provenance=provenance,
        detected=detected,
        nearest=find_nearest(
            [tokenize(p.caption) for p in predictions[primary_search]], training_tokens, training
        ),
        seeds={
            seed: {name: _corpus_scores(captions, scorer) for name, captions in searches.items()}
            for seed, searches in (by_seed or {}).items()
        },
    )


def _corpus_scores(predictions: Sequence[Prediction], scorer: Scorer) -> CorpusScores:
    return scorer.score([tokenize(prediction.caption) for prediction in predictions]).corpus


def _search_metrics(
    predictions: Sequence[Prediction],
    scorer: Scorer,
    training: Sequence[Tokens],
    vocabulary: Vocabulary,
) -> SearchMetrics:
    candidates = [tokenize(prediction.caption) for prediction in predictions]
    scores = scorer.score(candidates)
    words = {word for prediction in predictions for word in prediction.caption.split()}
    training_captions = {tuple(tokens) for tokens in training}
    photos = len(predictions)
    return SearchMetrics(
        predictions=predictions,
        scores=scores,
        corpus=scores.corpus,
        intervals=bootstrap_intervals(scores),
        meteor=meteor(candidates, scorer.references.by_image),
        distinct=100 * len({p.caption for p in predictions}) / photos,
        words_used=100 * len(words) / max(len(vocabulary.words), 1),
        copied=100 * sum(tuple(tokens) in training_captions for tokens in candidates) / photos,
        mean_length=sum(len(p.caption.split()) for p in predictions) / photos,
        unfinished=100 * sum(not p.finished for p in predictions) / photos,
    )


def _unknown_share(texts: Sequence[str], vocabulary: Vocabulary) -> float:
    words = Counter(word for text in texts for word in text.split())
    unknown = sum(count for word, count in words.items() if word not in vocabulary.ids)
    return 100 * unknown / max(words.total(), 1)


def _search_json(name: str, search: SearchMetrics) -> dict[str, Any]:
    return {
        "name": name,
        **_rounded(search.corpus),
        "METEOR": "n/a" if search.meteor is None else round(search.meteor, 2),
        "intervals": {
            metric: [round(low, 2), round(high, 2)]
            for metric, (low, high) in search.intervals.items()
        },
        **_rounded(
            {
                "distinct": search.distinct,
                "words_used": search.words_used,
                "copied": search.copied,
                "mean_length": search.mean_length,
                "unfinished": search.unfinished,
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
