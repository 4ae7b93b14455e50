"""The report: one HTML file with scores, baselines, the model and every test photo."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.captioner.model_config import ModelConfig
from pipeline.files import write_text
from pipeline.metrics.scorer import METRICS
from pipeline.reporting import baselines, charts
from pipeline.reporting.data_summary import DataSummary
from pipeline.reporting.evaluation import Evaluation
from pipeline.reporting.gallery import cards_as_json, make_cards, select_cards
from pipeline.reporting.layer_table import LayerTable
from pipeline.reporting.length_groups import group_by_length
from pipeline.reporting.page import render_page
from pipeline.reporting.tables import (
    caption_statistics,
    few_photos_text,
    image_use_text,
    meteor_text,
    search_label,
)
from pipeline.reporting.word_usage import compare_words

_CHART_METRICS = ("CIDEr-D", "BLEU-4")
_MAX_LISTED = 200  # failed photos, and entries of a list in captions.json


def write_report(
    path: Path,
    evaluation: Evaluation,
    image_paths: Mapping[str, Path],
    history_folder: Path,
    model_config: ModelConfig,
    layers: LayerTable,
    data: DataSummary,
) -> None:
    """Write the report: self-contained, with all text escaped.

    Args:
        path: the HTML file.
        evaluation: the evaluation.
        image_paths: image_id to file; missing or damaged photos get a placeholder.
        history_folder: the folder of history.csv and self_critical.csv, which may be missing.
        model_config: the contents of model.json.
        layers: the layers of one of its decoders.
        data: the data set.
    """
    values = {
        **_score_values(evaluation),
        **_chart_values(evaluation),
        **_training_values(model_config, history_folder),
        **_gallery_values(evaluation, image_paths),
        "model_config": model_config,
        "layers": layers,
        "feature_spec": asdict(model_config.feature_spec),
        "data": data,
        "data_lengths_chart": charts.data_lengths_chart(data.lengths),
        "max_listed": _MAX_LISTED,
    }
    filters: dict[str, Callable[..., str]] = {
        "search_label": search_label,
        "meteor_text": meteor_text,
    }
    write_text(path, render_page("report.html", ("gallery.js", "report.js"), values, filters))


# The functions below return the values of report.html by name.


def _score_values(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "evaluation": evaluation,
        "primary": evaluation.primary,
        "metrics": METRICS,
        "constant_caption": evaluation.baseline(baselines.CONSTANT_CAPTION),
        "shuffled_features_name": baselines.SHUFFLED_FEATURES,
        "explanations": baselines.EXPLANATIONS,
        "caption_statistics": {
            name: caption_statistics(search) for name, search in evaluation.searches.items()
        },
        "few_photos": few_photos_text(evaluation),
        "image_use": image_use_text(evaluation),
    }


def _chart_values(evaluation: Evaluation) -> dict[str, Any]:
    words = compare_words(
        [prediction.caption for prediction in evaluation.primary.predictions],
        [reference for group in evaluation.references.values() for reference in group],
    )
    return {
        "metric_charts": [charts.metric_chart(evaluation, metric) for metric in _CHART_METRICS],
        "words": words,
        "over_used_chart": charts.over_used_chart(words.over_used),
        "never_used_chart": charts.never_used_chart(words.never_used),
        "length_charts": charts.length_charts(group_by_length(evaluation.primary)),
    }


def _training_values(model_config: ModelConfig, history_folder: Path) -> dict[str, Any]:
    history = charts.read_history(history_folder / "history.csv")
    self_critical_history = charts.read_history(history_folder / "self_critical.csv")
    first, second = charts.kept_epochs(model_config.members)
    params = model_config.metadata.get("params", {})
    return {
        "line_charts": [
            *charts.learning_curves(history, first),
            *charts.self_critical_curves(self_critical_history, second),
        ],
        "selection_rule": _selection_rule(params, self_critical=bool(second)),
        "loss_note": _loss_note(params),
    }


def _selection_rule(params: Mapping[str, Any], *, self_critical: bool) -> str:
    """Return by which rule an epoch is kept, see `fit.FitLoop`."""
    if self_critical:
        return "In the self-critical phase it is the one with the highest CIDEr-D."
    if params.get("select") == "loss":
        return "It is the one with the lowest validation loss."
    if params.get("select") == "cider" and "select_tolerance" in params:
        share = f"{100 * params['select_tolerance']:g} %"
        return (
            f"It has the lowest validation loss among those whose CIDEr-D is within {share} of the "
            "best so far: CIDEr-D of few dev photos varies from epoch to epoch."
        )
    return ""


def _loss_note(params: Mapping[str, Any]) -> str:
    """Return why the training loss may lie above the validation loss; empty without a reason."""
    causes = {
        "dropout": ("dropout", "output_dropout"),
        "smoothed labels": ("label_smoothing",),
        "noise": ("feature_noise",),
        "captions without their photo": ("condition_dropout",),
        "words predicted by the decoder": ("scheduled_sampling",),
    }
    active = [name for name, keys in causes.items() if any(params.get(key) for key in keys)]
    if not active:
        return ""
    return (
        f"The training loss is computed while learning, with {', '.join(active)}; the validation "
        "loss without. So the training loss may lie above it."
    )


def _gallery_values(evaluation: Evaluation, image_paths: Mapping[str, Path]) -> dict[str, Any]:
    cards = make_cards(evaluation, image_paths)
    return {
        "selections": select_cards(cards),
        "cards_json": cards_as_json(cards),
        "has_attention": any(card.attention for card in cards),
    }
