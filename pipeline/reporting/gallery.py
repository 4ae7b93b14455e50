"""The gallery: each photo of the split with all that was said of it."""

import base64
import io
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.features.photos import PhotoError, read_photo, thumbnail
from pipeline.reporting.metrics import Evaluation

_SIDE = 240  # pixels; with this quality a thousand photos take about 10 MB
_QUALITY = 55
_PICKED = 6
_SEED = 0  # equal photos, equal picks


@dataclass(frozen=True)
class Said:
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
class Card:
    """One photo.

    Attributes:
        image_id: its name.
        picture: a data URI, or None where the photo is no longer there.
        said: its different captions, the headline's first.
        references: the photo's captions as people wrote them.
    """

    image_id: str
    picture: str | None
    said: Sequence[Said]
    references: Sequence[str]

    @property
    def headline(self) -> Said:
        """What the headline's search said."""
        return self.said[0]


@dataclass(frozen=True)
class Picks:
    """A few photos to begin with.

    Attributes:
        title: which ones.
        cards: of the photos.
    """

    title: str
    cards: Sequence[Card]


def make_cards(found: Evaluation, photos: Mapping[str, Path]) -> list[Card]:
    """Return each photo's card, in the order of the evaluation.

    Args:
        found: the evaluation.
        photos: image_id to file; those that are gone or damaged have no picture.
    """
    return [
        _card(found, row, _picture(photos.get(image_id)))
        for row, image_id in enumerate(found.image_ids)
    ]


def pick(cards: Sequence[Card]) -> list[Picks]:
    """Return the best, the worst and some random photos by the headline's CIDEr-D."""
    ranked = sorted(cards, key=lambda card: (-card.headline.cider_d, card.image_id))
    few = min(_PICKED, len(cards))
    return [
        Picks("The best", ranked[:few]),
        Picks("The worst", ranked[::-1][:few]),
        Picks("Drawn at random", random.Random(_SEED).sample(list(cards), few)),
    ]


def as_json(cards: Sequence[Card]) -> str:
    """Return cards as JSON that can stand in a script element, whatever strangers wrote."""
    text = json.dumps([_values(card) for card in cards], ensure_ascii=False, separators=(",", ":"))
    # Nothing is left of what could end the element, or begin a comment in it.
    for character in "&<>":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _card(found: Evaluation, row: int, picture: str | None) -> Card:
    image_id = found.image_ids[row]
    names = sorted(found.searches, key=lambda name: name != found.headline)
    said: dict[str, Said] = {}
    for name in names:
        search = found.searches[name]
        caption, label = search.predictions[row].caption, name.replace("_", " ")
        if caption in said:
            said[caption] = replace(said[caption], search=f"{said[caption].search}, {label}")
        else:
            scores = float(search.scores.cider_d[row]), float(search.scores.rouge_l[row])
            said[caption] = Said(label, caption, *scores)
    return Card(image_id, picture, list(said.values()), found.references[image_id])


def _values(card: Card) -> dict[str, Any]:
    return {
        "id": card.image_id,
        "picture": card.picture,
        "score": round(card.headline.cider_d, 2),
        "alt": card.headline.caption,
        "said": [
            [said.search, said.caption, f"{said.cider_d:.0f}", f"{said.rouge_l:.0f}"]
            for said in card.said
        ],
        "references": card.references,
    }


def _picture(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        small = thumbnail(read_photo(path), _SIDE)
    except PhotoError:
        return None
    data = io.BytesIO()
    small.save(data, "WEBP", quality=_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
