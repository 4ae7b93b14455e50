"""The report: one HTML file with the scores and every test photo, its captions beside it."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.features.photos import PhotoError, read_photo, thumbnail
from pipeline.files import write_text
from pipeline.reporting.metrics import Scores
from pipeline.reporting.predictions import Prediction

_THUMBNAIL_SIDE = 320  # pixels


@dataclass(frozen=True)
class Card:
    """One test photo of the gallery.

    Attributes:
        image_id: the photo.
        picture: a data URI, or None where the photo is no longer there.
        captions: search to caption.
        references: the photo's captions as people wrote them.
    """

    image_id: str
    picture: str | None
    captions: dict[str, str]
    references: Sequence[str]


def write_report(
    path: Path,
    scores: Mapping[str, Scores],
    predictions: Sequence[Prediction],
    references: Mapping[str, Sequence[str]],
    photos: Mapping[str, Path],
    provenance: Mapping[str, str],
) -> None:
    """Write the report: self-contained, every caption escaped.

    Args:
        path: the HTML file.
        scores: search to its scores.
        predictions: of all searches.
        references: image_id to raw captions.
        photos: image_id to file.
        provenance: what made these figures, as shown at the end.
    """
    captions: dict[str, dict[str, str]] = {}
    for prediction in predictions:
        captions.setdefault(prediction.image_id, {})[prediction.search] = prediction.caption
    cards = [
        Card(image_id, _picture(photos.get(image_id)), said, references[image_id])
        for image_id, said in sorted(captions.items())
    ]
    environment = Environment(
        loader=PackageLoader("pipeline.reporting", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html").render(
        scores=scores, cards=cards, provenance=provenance
    )
    write_text(path, page)


def _picture(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        small = thumbnail(read_photo(path), _THUMBNAIL_SIDE)
    except PhotoError:
        return None
    data = io.BytesIO()
    small.save(data, "WEBP", quality=60)
    return f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
