"""The gallery: each photo of the split with all that was said of it."""

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.reporting.evaluation import Evaluation
from pipeline.reporting.predictions import Prediction
from pipeline.reporting.thumbnails import Picture, picture, shade

_PICKED = 6
_SEED = 0  # equal photos, equal picks


@dataclass(frozen=True)
class PhotoCaption:
    """A caption of a photo.

    Attributes:
        search: the searches that found it.
        caption: its words; may be empty.
        cider_d: of the caption, x100.
        rouge_l: of the caption, x100.
    """

    search: str
    caption: str
    cider_d: float
    rouge_l: float


@dataclass(frozen=True)
class AttentionFrame:
    """Where the decoder looked for a word.

    Attributes:
        word: of the headline's caption.
        place: where it looked most, in words.
        shade: a data URI, see `pictures.shade`.
    """

    word: str
    place: str
    shade: str


@dataclass(frozen=True)
class PhotoCard:
    """One photo.

    Attributes:
        image_id: its name.
        picture: the photo made small, or None where it is no longer there.
        said: its different captions, the headline's first.
        detected: words that were detected in it.
        references: the photo's captions as people wrote them.
        glances: one for each word of the headline's caption; none where there is no
            picture, or the decoder does not look at places.
    """

    image_id: str
    picture: Picture | None
    said: Sequence[PhotoCaption]
    detected: Sequence[str]
    references: Sequence[str]
    glances: Sequence[AttentionFrame]

    @property
    def primary_search(self) -> PhotoCaption:
        """What the headline's search said."""
        return self.said[0]


@dataclass(frozen=True)
class Selection:
    """A few photos to begin with.

    Attributes:
        title: which ones.
        cards: of the photos.
    """

    title: str
    cards: Sequence[PhotoCard]


def make_cards(found: Evaluation, photos: Mapping[str, Path]) -> list[PhotoCard]:
    """Return each photo's card, in the order of the evaluation.

    Args:
        found: the evaluation.
        photos: image_id to file; those that are gone or damaged have no picture.
    """
    return [
        _card(found, row, picture(photos.get(image_id)))
        for row, image_id in enumerate(found.image_ids)
    ]


def pick(cards: Sequence[PhotoCard]) -> list[Selection]:
    """Return the best, the worst and some random photos by the headline's CIDEr-D."""
    ranked = sorted(cards, key=lambda card: (-card.primary_search.cider_d, card.image_id))
    few = min(_PICKED, len(cards))
    return [
        Selection("The best", ranked[:few]),
        Selection("The worst", ranked[::-1][:few]),
        Selection("Drawn at random", random.Random(_SEED).sample(list(cards), few)),
    ]


def as_json(cards: Sequence[PhotoCard]) -> str:
    """Return cards as JSON that can stand in a script element, whatever strangers wrote."""
    text = json.dumps([_values(card) for card in cards], ensure_ascii=False, separators=(",", ":"))
    # Nothing is left of what could end the element, or begin a comment in it.
    for character in "&<>":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _card(found: Evaluation, row: int, small: Picture | None) -> PhotoCard:
    image_id = found.image_ids[row]
    names = sorted(found.searches, key=lambda name: name != found.primary_search)
    said: dict[str, PhotoCaption] = {}
    for name in names:
        search = found.searches[name]
        caption, label = search.predictions[row].caption, name.replace("_", " ")
        if caption in said:
            said[caption] = replace(said[caption], search=f"{said[caption].search}, {label}")
        else:
            scores = float(search.scores.cider_d[row]), float(search.scores.rouge_l[row])
            said[caption] = PhotoCaption(label, caption, *scores)
    primary_search = found.searches[found.primary_search].predictions[row]
    glances = _glances(primary_search) if small else []
    return PhotoCard(
        image_id,
        small,
        list(said.values()),
        found.detected.get(image_id, ()),
        found.references[image_id],
        glances,
    )


def _glances(prediction: Prediction) -> list[AttentionFrame]:
    if prediction.maps is None:
        return []
    words = prediction.caption.split()
    return [
        AttentionFrame(word, _place(places), shade(places))
        for word, places in zip(words, prediction.maps, strict=True)
    ]


def _place(places: Sequence[int]) -> str:
    """Return in which ninth of a photo the middle of the greatest of a grid's places is."""
    side = math.isqrt(len(places))
    place = divmod(max(range(len(places)), key=places.__getitem__), side)
    row, column = (3 * (2 * position + 1) // (2 * side) for position in place)
    down, right = ("top", "", "bottom")[row], ("left", "", "right")[column]
    return f"{down} {right}".strip() or "centre"


def _values(card: PhotoCard) -> dict[str, Any]:
    return {
        "id": card.image_id,
        "picture": card.picture and card.picture.data,
        "size": card.picture and [card.picture.width, card.picture.height],
        "score": round(card.primary_search.cider_d, 2),
        "alt": card.primary_search.caption,
        "said": [
            [said.search, said.caption, f"{said.cider_d:.0f}", f"{said.rouge_l:.0f}"]
            for said in card.said
        ],
        "detected": ", ".join(card.detected),
        "looked": [[glance.word, glance.place, glance.shade] for glance in card.glances],
        "references": card.references,
    }
