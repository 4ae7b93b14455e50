"""The gallery: each photo of the split with its captions."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.progress import track
from pipeline.reporting.evaluation import Evaluation
from pipeline.reporting.evidence import has_enough_photos
from pipeline.reporting.nearest_captions import NearestCaption
from pipeline.reporting.predictions import Prediction
from pipeline.reporting.tables import search_label
from pipeline.reporting.thumbnails import (
    Thumbnail,
    attention_overlay,
    make_thumbnail,
    thumbnail_side,
)
from pipeline.reporting.visible_text import json_for_script, visible

_SELECTED = 6
_SEED = 0  # equal photos, equal selections


@dataclass(frozen=True)
class PhotoCaption:
    """A caption of a photo.

    Attributes:
        searches: the labels of the searches that found it, joined by commas.
        caption: its words; may be empty.
        cider_d: the caption's CIDEr-D, x100.
        rouge_l: the caption's ROUGE-L, x100.
    """

    searches: str
    caption: str
    cider_d: float
    rouge_l: float


@dataclass(frozen=True)
class AttentionFrame:
    """The decoder's attention while it generated one word.

    Attributes:
        word: a word of the primary search's caption.
        peak: the part of the photo with the most attention, like "top left".
        overlay: a data URI, see `thumbnails.attention_overlay`.
    """

    word: str
    peak: str
    overlay: str


@dataclass(frozen=True)
class PhotoCard:
    """One photo of the gallery.

    Attributes:
        image_id: its name.
        thumbnail: a small version of the photo; None if the photo is missing or damaged.
        captions: its different captions, the primary search's first.
        detected: words detected in it.
        references: the photo's raw captions.
        attention: a frame for each word of the primary search's caption; empty without a
            thumbnail or for a decoder without attention.
        nearest: the training caption nearest to the primary search's caption; None if unknown.
    """

    image_id: str
    thumbnail: Thumbnail | None
    captions: Sequence[PhotoCaption]
    detected: Sequence[str]
    references: Sequence[str]
    attention: Sequence[AttentionFrame]
    nearest: NearestCaption | None = None

    @property
    def primary(self) -> PhotoCaption:
        """The primary search's caption."""
        return self.captions[0]


@dataclass(frozen=True)
class Selection:
    """A few photos shown first.

    Attributes:
        title: how they were selected.
        note: why there are fewer than usual, or none.
        cards: their cards.
    """

    title: str
    note: str
    cards: Sequence[PhotoCard]


def make_cards(evaluation: Evaluation, image_paths: Mapping[str, Path]) -> list[PhotoCard]:
    """Return each photo's card, in the order of the evaluation.

    Args:
        evaluation: the evaluation.
        image_paths: image_id to file; missing or damaged files have no thumbnail.
    """
    side = thumbnail_side(len(evaluation.image_ids))
    return [
        _card(evaluation, row, make_thumbnail(image_paths.get(image_id), side))
        for row, image_id in enumerate(
            track(evaluation.image_ids, "report", len(evaluation.image_ids), "photos")
        )
    ]


def select_cards(cards: Sequence[PhotoCard]) -> list[Selection]:
    """Return the best, the worst and some random photos, by the primary search's CIDEr-D.

    A caption that scores 0 is no best one, and no photo is among both the best and the worst.
    Of too few photos to rank (see `evidence`), all are returned.
    """
    if not has_enough_photos(len(cards)):
        return [Selection("All test photos", "", cards)]
    ranked = sorted(cards, key=lambda card: (-card.primary.cider_d, card.image_id))
    best = [card for card in ranked if card.primary.cider_d > 0][:_SELECTED]
    worst = [card for card in ranked[::-1] if card not in best][:_SELECTED]
    return [
        Selection("The best", "" if best else "No caption has a CIDEr-D above 0.", best),
        Selection("The worst", "", worst),
        Selection("Drawn at random", "", random.Random(_SEED).sample(list(cards), _SELECTED)),
    ]


def cards_as_json(cards: Sequence[PhotoCard]) -> str:
    """Return cards as JSON for the page's script."""
    return json_for_script([_card_json(card) for card in cards])


def _card(evaluation: Evaluation, row: int, thumbnail: Thumbnail | None) -> PhotoCard:
    image_id = evaluation.image_ids[row]
    names = sorted(evaluation.searches, key=lambda name: name != evaluation.primary_search)
    captions: dict[str, PhotoCaption] = {}
    for name in names:
        search = evaluation.searches[name]
        text, label = search.predictions[row].caption, search_label(name)
        if text in captions:
            captions[text] = replace(captions[text], searches=f"{captions[text].searches}, {label}")
        else:
            scores = float(search.scores.cider_d[row]), float(search.scores.rouge_l[row])
            captions[text] = PhotoCaption(label, text, *scores)
    prediction = evaluation.primary.predictions[row]
    return PhotoCard(
        image_id,
        thumbnail,
        list(captions.values()),
        evaluation.detected.get(image_id, ()),
        evaluation.references[image_id],
        _attention_frames(prediction) if thumbnail else [],
        evaluation.nearest[row] if evaluation.nearest else None,
    )


def _attention_frames(prediction: Prediction) -> list[AttentionFrame]:
    if prediction.maps is None:
        return []
    words = prediction.caption.split()
    return [
        AttentionFrame(word, _peak(weights), attention_overlay(weights))
        for word, weights in zip(words, prediction.maps, strict=True)
    ]


def _peak(weights: Sequence[int]) -> str:
    """Return the ninth of the photo that holds the centre of the position with most attention."""
    side = math.isqrt(len(weights))
    position = divmod(max(range(len(weights)), key=weights.__getitem__), side)
    row, column = (3 * (2 * coordinate + 1) // (2 * side) for coordinate in position)
    vertical, horizontal = ("top", "", "bottom")[row], ("left", "", "right")[column]
    return f"{vertical} {horizontal}".strip() or "centre"


def _card_json(card: PhotoCard) -> dict[str, Any]:
    said = set(card.primary.caption.split())
    return {
        "id": visible(card.image_id),
        "thumbnail": card.thumbnail and card.thumbnail.data_uri,
        "size": card.thumbnail and [card.thumbnail.width, card.thumbnail.height],
        "score": round(card.primary.cider_d, 2),
        "alt": visible(card.primary.caption),
        "captions": [
            [
                visible(caption.searches),
                visible(caption.caption),
                f"{caption.cider_d:.0f}",
                f"{caption.rouge_l:.0f}",
            ]
            for caption in card.captions
        ],
        "detected": visible(", ".join(card.detected)),
        "unsaid": any(word not in said for word in card.detected),
        "nearest": [card.nearest.is_copy, visible(card.nearest.caption)] if card.nearest else None,
        "attention": [[visible(f.word), f.peak, f.overlay] for f in card.attention],
        "references": list(map(visible, card.references)),
    }
