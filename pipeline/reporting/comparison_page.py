"""The page of `caption compare --html`: two runs side by side, sorted by what changed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.files import write_text
from pipeline.metrics.ngrams import Floats, Tokens
from pipeline.metrics.scorer import Scorer
from pipeline.metrics.significance import MIN_IMAGES, Difference
from pipeline.reporting.evidence import has_enough_photos
from pipeline.reporting.page import render_page
from pipeline.reporting.thumbnails import make_thumbnail, thumbnail_side
from pipeline.reporting.visible_text import json_for_script, visible


@dataclass(frozen=True)
class ComparedRuns:
    """Two runs' captions of the same photos.

    Attributes:
        names: the runs' names.
        image_ids: the photos.
        candidates: for each run its caption of each photo, as tokens.
        references: for each photo its references, as tokens.
        notes: what affects the interpretation of the scores, one line each.
        differences: the difference in each metric.
    """

    names: tuple[str, str]
    image_ids: Sequence[str]
    candidates: Sequence[Sequence[Tokens]]
    references: Sequence[Sequence[Tokens]]
    notes: Sequence[str]
    differences: Mapping[str, Difference]


def write_comparison_page(path: Path, runs: ComparedRuns, image_paths: Mapping[str, Path]) -> None:
    """Write a self-contained page with both runs' captions of every photo.

    Args:
        path: the HTML file.
        runs: the runs.
        image_paths: image_id to file; photos that are not there have no picture.

    Raises:
        InputError: the file cannot be written.
    """
    values = {
        "runs": runs,
        "n_changed": sum(map(_differ, *runs.candidates)),
        "min_photos": MIN_IMAGES,
        "has_enough_photos": has_enough_photos(len(runs.image_ids)),
        "cards_json": json_for_script(_cards(runs, image_paths)),
    }
    page = render_page("comparison.html", ("gallery.js", "comparison.js"), values)
    try:
        write_text(path, page)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}): give --html another file"
        ) from None


def read_image_paths(references: Path) -> dict[str, Path]:
    """Return image_id to file from the extract.json beside the references; empty without one.

    Pictures are an extra: a damaged extract.json costs no page.
    """
    try:
        paths = json.loads((references.parent / "extract.json").read_text("utf-8"))["paths"]
        return {image_id: Path(name) for image_id, name in paths.items()}
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return {}


def _cards(runs: ComparedRuns, image_paths: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Return each photo's card, the largest change first."""
    scorer = Scorer(runs.references)
    scores: list[Floats] = [scorer.score(candidates).cider_d for candidates in runs.candidates]
    side = thumbnail_side(len(runs.image_ids))
    cards = []
    for row, image_id in enumerate(runs.image_ids):
        thumbnail = make_thumbnail(image_paths.get(image_id), side)
        first, second = (round(float(run[row]), 1) for run in scores)
        cards.append(
            {
                "id": visible(image_id),
                "thumbnail": thumbnail and thumbnail.data_uri,
                "size": thumbnail and [thumbnail.width, thumbnail.height],
                "captions": [visible(" ".join(run[row])) for run in runs.candidates],
                "scores": [first, second],
                "change": round(second - first, 1),
                "references": [visible(" ".join(tokens)) for tokens in runs.references[row]],
            }
        )
    return sorted(cards, key=lambda card: (-abs(card["change"]), card["id"]))


def _differ(first: Sequence[str], second: Sequence[str]) -> bool:
    return list(first) != list(second)
