"""The report: one HTML file with the scores, what they are worth, and every test photo."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.captioner.model_config import ModelConfig
from pipeline.files import write_text
from pipeline.metrics.scorer import METRICS
from pipeline.reporting import charts
from pipeline.reporting.diagram import diagram
from pipeline.reporting.evaluation import Evaluation
from pipeline.reporting.gallery import as_json, make_cards, pick
from pipeline.reporting.lengths import by_length
from pipeline.reporting.word_usage import compare_words

_PICTURED = ("CIDEr-D", "BLEU-4")


def write_report(
    path: Path,
    found: Evaluation,
    photos: Mapping[str, Path],
    artifacts: Path,
    model: ModelConfig,
) -> None:
    """Write the report: self-contained, every caption escaped.

    Args:
        path: the HTML file.
        found: the evaluation.
        photos: image_id to file; what is gone or damaged is left out of the picture.
        artifacts: the folder of history.csv and self_critical.csv, which may be gone.
        model: what was evaluated.
    """
    environment = Environment(
        loader=PackageLoader("pipeline.reporting", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    primary_search = found.searches[found.primary_search]
    cards = make_cards(found, photos)
    words = compare_words(
        [prediction.caption for prediction in primary_search.predictions],
        [reference for group in found.references.values() for reference in group],
    )
    script = _source("report.js")
    page = environment.get_template("report.html").render(
        found=found,
        primary_search=primary_search,
        metrics=METRICS,
        style=_source("report.css"),
        script=script,
        script_sha256=_digest(script),
        score_charts=[charts.of_metric(found, metric) for metric in _PICTURED],
        curves=[
            *charts.of_history(charts.read_history(artifacts / "history.csv")),
            *charts.of_rewards(charts.read_history(artifacts / "self_critical.csv")),
        ],
        selections=pick(cards),
        words=words,
        over_used=charts.of_over_used(words.over_used),
        never_used=charts.of_never_used(words.never_used),
        length_charts=charts.of_lengths(by_length(primary_search)),
        cards_json=as_json(cards),
        looked=any(card.glances for card in cards),
        model=model,
        diagram=diagram(model),
        feature_spec=asdict(model.feature_spec),
    )
    write_text(path, page)


def _source(name: str) -> str:
    """Return a file beside this one as it is: ours, and no stranger's word in it."""
    return files("pipeline.reporting").joinpath(name).read_text("utf-8")


def _digest(script: str) -> str:
    """Return what a Content-Security-Policy calls the one script that may run."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return base64.b64encode(digest).decode("ascii")
