"""The report: one HTML file with scores, baselines, the model and every test photo."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.captioner.model_config import ModelConfig
from pipeline.files import write_text
from pipeline.metrics.scorer import METRICS
from pipeline.reporting import baselines, charts
from pipeline.reporting.evaluation import Evaluation
from pipeline.reporting.gallery import cards_as_json, make_cards, select_cards
from pipeline.reporting.layer_table import LayerTable
from pipeline.reporting.length_groups import group_by_length
from pipeline.reporting.tables import caption_statistics, meteor_text, search_label
from pipeline.reporting.word_usage import compare_words

_CHART_METRICS = ("CIDEr-D", "BLEU-4")


def write_report(
    path: Path,
    evaluation: Evaluation,
    image_paths: Mapping[str, Path],
    history_folder: Path,
    model_config: ModelConfig,
    layers: LayerTable,
) -> None:
    """Write the report: self-contained, with all text escaped.

    Args:
        path: the HTML file.
        evaluation: the evaluation.
        image_paths: image_id to file; missing or damaged photos get a placeholder.
        history_folder: the folder of history.csv and self_critical.csv, which may be missing.
        model_config: the contents of model.json.
        layers: the layers of one of its decoders.
    """
    values = {
        **_score_values(evaluation),
        **_chart_values(evaluation, history_folder),
        **_gallery_values(evaluation, image_paths),
        **_source_values(),
        "model_config": model_config,
        "layers": layers,
        "feature_spec": asdict(model_config.feature_spec),
    }
    write_text(path, _environment().get_template("report.html").render(values))


# The functions below return the values of report.html by name.


def _score_values(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "evaluation": evaluation,
        "primary": evaluation.primary,
        "metrics": METRICS,
        "constant_caption": evaluation.baseline(baselines.CONSTANT_CAPTION),
        "shuffled_features_name": baselines.SHUFFLED_FEATURES,
        "explanations": baselines.EXPLANATIONS,
        "caption_statistics": [caption_statistics(s) for s in evaluation.searches.values()],
    }


def _chart_values(evaluation: Evaluation, history_folder: Path) -> dict[str, Any]:
    history = charts.read_history(history_folder / "history.csv")
    self_critical_history = charts.read_history(history_folder / "self_critical.csv")
    words = compare_words(
        [prediction.caption for prediction in evaluation.primary.predictions],
        [reference for group in evaluation.references.values() for reference in group],
    )
    return {
        "metric_charts": [charts.metric_chart(evaluation, metric) for metric in _CHART_METRICS],
        "line_charts": [
            *charts.learning_curves(history),
            *charts.self_critical_curves(self_critical_history),
        ],
        "words": words,
        "over_used_chart": charts.over_used_chart(words.over_used),
        "never_used_chart": charts.never_used_chart(words.never_used),
        "length_charts": charts.length_charts(group_by_length(evaluation.primary)),
    }


def _gallery_values(evaluation: Evaluation, image_paths: Mapping[str, Path]) -> dict[str, Any]:
    cards = make_cards(evaluation, image_paths)
    return {
        "selections": select_cards(cards),
        "cards_json": cards_as_json(cards),
        "has_attention": any(card.attention for card in cards),
    }


def _source_values() -> dict[str, Any]:
    script = _source("report.js")
    return {
        "style": _source("report.css"),
        "script": script,
        "script_sha256": _csp_digest(script),
    }


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("pipeline.reporting", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["search_label"] = search_label
    environment.filters["meteor_text"] = meteor_text
    return environment


def _source(name: str) -> str:
    """Return a file of this package as it is; it holds no untrusted text."""
    return files("pipeline.reporting").joinpath(name).read_text("utf-8")


def _csp_digest(script: str) -> str:
    """Return the digest by which the Content-Security-Policy allows the page's one script."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return base64.b64encode(digest).decode("ascii")
