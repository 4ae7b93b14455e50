"""Evaluations of made-up captions, for tests of the report."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.captioner.model_config import DecoderConfig, Member, ModelConfig
from pipeline.metrics.scorer import METRICS, Scorer
from pipeline.metrics.tokenizer import tokenize
from pipeline.reporting.baselines import (
    CONSTANT_CAPTION,
    HUMAN_AGREEMENT,
    MODEL_LEAVE_ONE_OUT,
    RANDOM_CAPTIONS,
    SHUFFLED_FEATURES,
    Baseline,
)
from pipeline.reporting.data_summary import Change, DataSummary, SplitSummary
from pipeline.reporting.evaluation import Evaluation, SearchMetrics
from pipeline.reporting.layer_table import LayerRow, LayerTable
from pipeline.reporting.predictions import Prediction
from tests.conftest import FEATURE_SPEC

MODEL = ModelConfig(
    decoder=DecoderConfig(
        name="merge",
        vocabulary_size=1470,
        feature_shape=(2048,),
        embedding_size=96,
        units=128,
        dropout=0.5,
        output_dropout=0.25,
    ),
    members=(Member(7, "c" * 64, {}),),
    feature_spec=FEATURE_SPEC,
    vocabulary_fingerprint="d" * 64,
    metadata={"params": {"learning_rate": 0.0005}},
)
LAYER_ROWS = [
    LayerRow("features", "InputLayer", [(None, 2048)], 0, []),
    LayerRow("ids", "InputLayer", [(None, None)], 0, []),
    LayerRow("image", "Dense", [(None, 128)], 262_272, ["features"]),
    LayerRow(
        "embedding", "ReversibleEmbedding", [(None, None, 96), (None, None, 1470)], 9, ["ids"]
    ),
    LayerRow("merge", "Add", [(None, None, 128)], 0, ["embedding", "image"]),
]
LAYERS = LayerTable(LAYER_ROWS, 262_281)
DATA = DataSummary(
    splits=[SplitSummary("train", 6, 30, 9.5, 3, 20, 41), SplitSummary("test", 3, 4, 4, 2, 9, 7)],
    lengths=[("3 to 4", 10), ("5 to 6", 20)],
    frequent_words=["a", "dog"],
    changes=[Change("dropped", "no words", 2, ["captions.txt, line 7: '!'"])],
    counts=[("photos not there", 5)],
    listed=[("same photos in two splits", ["a.png (train), b.png (test)"])],
    failed=[("bad.png", "test", "empty file")],
)
FLAT = dict.fromkeys(METRICS, 1.5)
BASELINES = [
    Baseline(CONSTANT_CAPTION, FLAT, "a man is standing"),
    Baseline(RANDOM_CAPTIONS, dict.fromkeys(METRICS, 1.25)),
    Baseline(SHUFFLED_FEATURES, dict.fromkeys(METRICS, 0.75)),
    Baseline(MODEL_LEAVE_ONE_OUT, dict.fromkeys(METRICS, 211.0)),
    Baseline(HUMAN_AGREEMENT, dict.fromkeys(METRICS, 222.0)),
]


def search_metrics(
    name: str, captions: Sequence[str], references: Mapping[str, Sequence[str]]
) -> SearchMetrics:
    """Score a search's captions, one for each photo of `references`."""
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
    captions: Mapping[str, Sequence[str]], references: Mapping[str, Sequence[str]], **changes: Any
) -> Evaluation:
    """Return an evaluation of each search's captions; the last search is the primary one."""
    result = Evaluation(
        image_ids=list(references),
        references=references,
        searches={name: search_metrics(name, c, references) for name, c in captions.items()},
        primary_search=list(captions)[-1],
        baselines=BASELINES,
        unknown_words=6.25,
        perplexity=8.125,
        provenance={"split": "test", "features": "0123abcd"},
    )
    return replace(result, **changes)


def with_maps(original: Evaluation, maps: Sequence[Sequence[int]]) -> Evaluation:
    """Give the words of the primary search's captions attention maps, in turn."""
    search = original.primary
    predictions = [
        replace(p, maps=[maps[word % len(maps)] for word in range(len(p.caption.split()))])
        for p in search.predictions
    ]
    searches = {
        **original.searches,
        original.primary_search: replace(search, predictions=predictions),
    }
    return replace(original, searches=searches)
