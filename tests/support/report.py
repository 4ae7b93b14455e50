"""Evaluations to report, of captions made up here."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.captioner.model_config import DecoderConfig, Member, ModelConfig
from pipeline.metrics.scorer import METRICS, Scorer
from pipeline.metrics.tokenizer import tokenize
from pipeline.reporting.baselines import (
    CONSTANT_CAPTION,
    HUMAN_AGREEMENT,
    RANDOM_CAPTIONS,
    SHUFFLED_FEATURES,
    Baseline,
)
from pipeline.reporting.evaluation import Evaluation, SearchMetrics
from pipeline.reporting.predictions import Prediction
from tests.conftest import ENCODING

MODEL = ModelConfig(
    DecoderConfig(
        name="merge",
        vocabulary_size=1470,
        feature_shape=(2048,),
        embedding_size=96,
        units=128,
        dropout=0.5,
        output_dropout=0.25,
    ),
    members=(Member(7, "c" * 64, {}),),
    encoding=ENCODING,
    vocabulary_fingerprint="d" * 64,
    metadata={"params": {"learning_rate": 0.0005}},
)
CONFIG = MODEL.decoder
FLAT = dict.fromkeys(METRICS, 1.5)
BASELINES = [
    Baseline(CONSTANT_CAPTION, FLAT, "a man is standing"),
    Baseline(RANDOM_CAPTIONS, dict.fromkeys(METRICS, 1.25)),
    Baseline(SHUFFLED_FEATURES, dict.fromkeys(METRICS, 0.75)),
    Baseline(HUMAN_AGREEMENT, dict.fromkeys(METRICS, 222.0)),
]


def grid_model() -> ModelConfig:
    """Return a model of photos in 49 places."""
    return replace(MODEL, decoder=replace(CONFIG, feature_shape=(49, 576)))


def searched(
    name: str, captions: Sequence[str], references: Mapping[str, Sequence[str]]
) -> SearchMetrics:
    """Score a search's captions, one a photo of `references`."""
    scorer = Scorer([[tokenize(raw) for raw in group] for group in references.values()])
    scores = scorer.score([tokenize(caption) for caption in captions])
    return SearchMetrics(
        predictions=[
            Prediction(image_id, name, caption, -1.0, finished=True)
            for image_id, caption in zip(references, captions, strict=True)
        ],
        scores=scores,
        corpus=scores.corpus,
        intervals={metric: (value * 0.9, value * 1.1) for metric, value in scores.corpus.items()},
        meteor=None,
        distinct=91.0,
        words_used=92.0,
        copied=93.0,
        mean_length=4.5,
        unfinished=95.0,
    )


def evaluation(
    said: Mapping[str, Sequence[str]], references: Mapping[str, Sequence[str]], **changes: Any
) -> Evaluation:
    """Return an evaluation of searches' captions; the last one is the headline."""
    found = Evaluation(
        image_ids=list(references),
        references=references,
        searches={name: searched(name, captions, references) for name, captions in said.items()},
        primary_search=list(said)[-1],
        baselines=BASELINES,
        unknown_words=6.25,
        perplexity=8.125,
        provenance={"split": "test", "features": "0123abcd"},
    )
    return replace(found, **changes)


def with_maps(found: Evaluation, maps: Sequence[Sequence[int]]) -> Evaluation:
    """Let a decoder have looked there for the words of the headline's captions, by turns."""
    search = found.searches[found.primary_search]
    predictions = [
        replace(p, maps=[maps[word % len(maps)] for word in range(len(p.caption.split()))])
        for p in search.predictions
    ]
    changed = replace(search, predictions=predictions)
    return replace(found, searches={**found.searches, found.primary_search: changed})
