"""Stage `evaluate` with decoders from two seeds."""

import json
import math
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.generation.beam_search import search
from pipeline.captioner.generation.ensemble import make_ensemble
from pipeline.captioner.generation.guidance import with_guidance
from pipeline.captioner.generation.interfaces import StepDecoder
from pipeline.captioner.generation.settings import SearchSettings, read_search_settings
from pipeline.captioner.generation.word_guidance import with_word_guidance
from pipeline.captioner.model_folder import Model
from pipeline.captioner.neighbours import Neighbours, fit_neighbours
from pipeline.captioner.training.loss import mean_loss
from pipeline.captioner.word_detector import WordDetector, fit_detector
from pipeline.datasets.annotations import Summary
from pipeline.datasets.caption_table import read_caption_table
from pipeline.errors import InputError
from pipeline.features.store import FeatureStore
from pipeline.files import write_json
from pipeline.metrics.scorer import METRICS, Scorer
from pipeline.metrics.tokenizer import tokenize
from pipeline.stages import evaluate
from pipeline.text.vocabulary import Vocabulary
from tests.support.captioner import (
    CAPTIONS,
    PHOTOS,
    SAME_LENGTH_CAPTIONS,
    make_batches,
    make_peaked_decoder,
    make_store,
    make_vocabulary,
    write_captions,
    write_extract_json,
    write_params,
)

MAX_WORDS = 6
TRAINING = {
    "epochs": 1,
    "best": {"epoch": 1, "validation_loss": 1.0, "validation_cider_d": 9.0},
    "stopped": "set by hand",
}


@pytest.fixture(scope="module")
def decoders() -> list[Decoder]:
    return [make_peaked_decoder(seed=seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, decoders: list[Decoder]) -> Path:
    """Write the outputs of the stages before `evaluate`."""
    folder = tmp_path_factory.mktemp("project")
    artifacts = folder / "artifacts"
    training = [(f"{number}-train.jpg", text) for number, (_, text) in enumerate(CAPTIONS)]
    write_captions(
        artifacts / "captions.parquet", {"train": training, "test": SAME_LENGTH_CAPTIONS}
    )
    store = make_store(artifacts / "features.h5")
    write_extract_json(artifacts)
    write_json(artifacts / "captions.json", Summary().as_dict())
    table = read_caption_table(artifacts / "captions.parquet")
    vocabulary = Vocabulary.build(table.texts("train"), 1, table.fingerprint)
    assert vocabulary.words == make_vocabulary().words
    vocabulary.save(artifacts / "vocabulary.json")
    trained = {seed: (decoder, TRAINING) for seed, decoder in zip((7, 8), decoders, strict=True)}
    metadata = {"captions": table.fingerprint, "params": {"max_words": 50}}
    model = Model.from_decoders(trained, store.feature_spec, vocabulary.fingerprint, metadata)
    model.save(artifacts / "model")
    encoded = {image_id: [vocabulary.encode(text)] for image_id, text in CAPTIONS}
    detector = fit_detector(encoded, store.read, len(vocabulary), 0.3)
    detector.save(artifacts / "detector.h5", vocabulary, store.feature_spec)
    neighbours = fit_neighbours(encoded, store.read, detector)
    neighbours.save(artifacts / "neighbours.h5", vocabulary, detector)
    return folder


def detector_of(project: Path) -> WordDetector:
    artifacts = project / "artifacts"
    vocabulary = Vocabulary.load(artifacts / "vocabulary.json")
    feature_spec = FeatureStore.open(artifacts / "features.h5").feature_spec
    return WordDetector.load(artifacts / "detector.h5", vocabulary, feature_spec, 6)


def neighbours_of(project: Path) -> Neighbours:
    artifacts = project / "artifacts"
    vocabulary = Vocabulary.load(artifacts / "vocabulary.json")
    return Neighbours.load(artifacts / "neighbours.h5", vocabulary, detector_of(project))


def metrics_of(project: Path, monkeypatch: pytest.MonkeyPatch, **params: Any) -> dict[str, Any]:
    """Run the stage; return metrics.json."""
    monkeypatch.chdir(project)
    values = {"beam_widths": [3], "max_words": MAX_WORDS} | params
    write_params(project, evaluate=values, dataset={"root": "no such folder"})
    evaluate.main()
    text = (project / "artifacts" / "evaluation" / "metrics.json").read_text("utf-8")
    metrics: dict[str, Any] = json.loads(text)
    return metrics


def captions(project: Path, decoder: StepDecoder, width: int) -> list[str]:
    """Return the captions that a search finds, in the order of image_id."""
    store = FeatureStore.open(project / "artifacts" / "features.h5")
    features = store.read(sorted(PHOTOS))
    results = search(decoder, features, width, MAX_WORDS, no_repeat_ngram_size=3)
    return [make_vocabulary().decode(hypotheses[0].ids) for hypotheses in results]


def scores(candidates: Sequence[str]) -> dict[str, float]:
    """Return METRICS as metrics.json has them."""
    scorer = Scorer(
        [[tokenize(dict(SAME_LENGTH_CAPTIONS)[image_id])] for image_id in sorted(PHOTOS)]
    )
    corpus = scorer.score([tokenize(caption) for caption in candidates]).corpus
    return {name: round(value, 2) for name, value in corpus.items()}


def perplexity(project: Path, decoders: list[Decoder]) -> float:
    batches = make_batches(
        FeatureStore.open(project / "artifacts" / "features.h5"), SAME_LENGTH_CAPTIONS
    )
    return math.exp(statistics.mean(mean_loss(decoder, batches) for decoder in decoders))


def only_metrics(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in METRICS}


def test_the_ensemble_and_each_seed_are_evaluated(
    project: Path, monkeypatch: pytest.MonkeyPatch, decoders: list[Decoder]
) -> None:
    weights = {"guidance": 0.5, "word_logit_bias": 0.7, "word_rerank_weight": 4.0}
    weights["neighbour_rerank_weight"] = 2.0
    metrics = metrics_of(project, monkeypatch, beam_widths=[6, 3], **weights)
    (details,) = metrics["details"]
    searches = {row["name"]: only_metrics(row) for row in details["searches"]}
    guided = [with_guidance(decoder, 0.5) for decoder in decoders]
    detector, neighbours = detector_of(project), neighbours_of(project)
    word_guidance = (detector, 0.7, 4.0, neighbours, 2.0)
    ensemble = with_word_guidance(make_ensemble(guided), *word_guidance)
    widths = {"greedy": 1, "beam_6": 6, "beam_3": 3}
    expected = {name: captions(project, ensemble, width) for name, width in widths.items()}
    assert searches == {name: scores(candidates) for name, candidates in expected.items()}
    assert details["primary_search"] == "beam_6"
    assert only_metrics(metrics) == searches["beam_6"]
    assert metrics["perplexity"] == pytest.approx(perplexity(project, decoders), rel=1e-4)

    by_seed = {(row["seed"], row["search"]): only_metrics(row) for row in details["seeds"]}
    assert list(by_seed) == [(seed, name) for seed in (7, 8) for name in searches]
    for seed, guided_decoder in zip((7, 8), guided, strict=True):
        decoder = with_word_guidance(guided_decoder, *word_guidance)
        assert by_seed[seed, "beam_3"] == scores(captions(project, decoder, 3))
    assert by_seed[7, "beam_3"] != by_seed[8, "beam_3"]
    (beam,) = (row for row in details["over_seeds"] if row["search"] == "beam_3")
    ciders = [by_seed[seed, "beam_3"]["CIDEr-D"] for seed in (7, 8)]
    assert beam["CIDEr-D"]["mean"] == pytest.approx(statistics.mean(ciders), abs=0.02)
    assert beam["CIDEr-D"]["deviation"] == pytest.approx(statistics.stdev(ciders), abs=0.02)
    assert details["provenance"]["decoder"].startswith("ensemble of 2: merge")
    assert details["provenance"]["guidance"] == "0.5"
    guidance = f"logit bias 0.7, rerank weight 4, detector {detector.digest}"
    assert details["provenance"]["word guidance"] == guidance
    assert details["provenance"]["neighbours"] == f"rerank weight 2, {neighbours.digest}"
    settings = read_search_settings(project / "artifacts" / "search.json")
    assert settings == SearchSettings(6, MAX_WORDS, 3, 0.5, 0.7, 4.0, 2.0, ensemble=True)

    report = (project / "artifacts" / "evaluation" / "report.html").read_text("utf-8")
    features = FeatureStore.open(project / "artifacts" / "features.h5").read(["0.jpg"])
    words = make_vocabulary().decode(detector.top_words(features, 6)[0]).split()
    assert len(words) == 6
    assert f'"detected":"{", ".join(words)}"' in report

    assert len({*map(tuple, expected.values())}) == 3  # the searches find different captions
    rows = pq.read_table(project / "artifacts" / "evaluation" / "predictions.parquet").to_pylist()
    assert {(row["image_id"], row["search"], row["caption"]) for row in rows} == {
        (image_id, name, caption)
        for name, candidates in expected.items()
        for image_id, caption in zip(sorted(PHOTOS), candidates, strict=True)
    }


def test_without_an_ensemble_the_first_seed_is_evaluated(
    project: Path, monkeypatch: pytest.MonkeyPatch, decoders: list[Decoder]
) -> None:
    weights = {"guidance": 0.0, "word_logit_bias": 0.0, "word_rerank_weight": 0.0}
    # Of so few captions, the neighbours' weight is 0, so that their file is not read.
    monkeypatch.setattr(Neighbours, "load", None)
    metrics = metrics_of(project, monkeypatch, ensemble=False, **weights)
    (details,) = metrics["details"]
    assert details["primary_search"] == "beam_3"
    assert only_metrics(metrics) == scores(captions(project, decoders[0], 3))
    assert metrics["perplexity"] == pytest.approx(perplexity(project, decoders[:1]), rel=1e-4)
    # The spread over seeds is reported all the same.
    assert {row["seed"] for row in details["seeds"]} == {7, 8}
    assert details["provenance"]["decoder"].startswith("merge")
    assert details["provenance"]["neighbours"] == "none"


def test_a_single_photo_with_features_is_refused(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(project, tmp_path, dirs_exist_ok=True)
    make_store(tmp_path / "artifacts" / "features.h5", [dict(SAME_LENGTH_CAPTIONS).popitem()[0]])
    with pytest.raises(InputError, match=r"fewer than 2 test photos.*features.*list the reasons"):
        metrics_of(tmp_path, monkeypatch)
