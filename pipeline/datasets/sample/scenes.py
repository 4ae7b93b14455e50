"""Scenes: the contents of the sample's photos.

A scene shows, on a plain background, either a row (one to three equal shapes side by side) or
a pair (two different shapes and the relation between them). Everything about it follows from
the seed, the split and the index, so a split can grow or shrink without changing any scene of
another split.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

_Option = TypeVar("_Option")

WIDTH, HEIGHT = 320, 240  # pixels

# Colours that a linear probe on frozen Xception features separates after 360 scenes. The probe
# confused yellow with red and, on white or black, most colours with one another; on backgrounds
# of medium brightness these five stay distinct.
COLOURS = ("black", "white", "red", "green", "blue")
SHAPES = ("circle", "square", "triangle", "star")
BACKGROUNDS = ("grey", "pink", "brown")
# Pixels. The ratio is above two, so that it is always clear which word fits.
DIAMETERS = {"small": 42.0, "large": 88.0}

_PAIR_SHARE = 0.6
_ROW_COUNTS = (1, 2, 2, 3, 3)  # fewer single shapes, because pairs have them too

# "left of" is rarer: the pooled features of a CNN trained on mirrored photos hardly contain
# which side a shape is on (a linear probe is at chance; it predicts above and inside well).
_RELATIONS = ("left of", "above", "above", "inside", "inside")

# Distance in pixels between the centres of neighbours in a row: it leaves clear gaps, and
# three large shapes still fit into the photo.
_PITCH = {"small": 68.0, "large": 102.0}
# Position of a pair's first shape relative to the second: (x, y) in pixels. The first shape is
# always the left or upper one, in reading order, so the photo shows which of the two is first.
_OFFSETS = {
    "left of": (-144.0, 0.0),
    "above": (0.0, -112.0),
    "inside": (0.0, 0.0),
}


@dataclass(frozen=True)
class ShapeGroup:
    """One or more equal shapes of one colour.

    Attributes:
        shape: one of `SHAPES`.
        colour: one of `COLOURS`.
        size: "small" or "large".
        diameter: in pixels.
        centres: one (x, y) in pixels for each shape, from the left; y grows downwards.
    """

    shape: str
    colour: str
    size: str
    diameter: float
    centres: tuple[tuple[float, float], ...]

    @property
    def count(self) -> int:
        """The number of shapes, 1 to 3."""
        return len(self.centres)


@dataclass(frozen=True)
class Scene:
    """The contents of a photo: a row of equal shapes, or a pair and its relation.

    Attributes:
        name: the photo's file name.
        background: one of `BACKGROUNDS`.
        groups: one group for a row; two groups of one shape each for a pair.
        relation: where the first shape of a pair is relative to the second: "left of",
            "above" or "inside"; None for a row.
        wording: seed for the choice of captions.
    """

    name: str
    background: str
    groups: tuple[ShapeGroup, ...]
    relation: str | None
    wording: int


def generate_scene(seed: int, split: str, index: int) -> Scene:
    """Generate scene number `index` of a split; equal arguments give an equal scene."""
    # Each scene has its own seed, so it does not depend on other scenes or on their number.
    digest = hashlib.sha256(f"{seed}/{split}/{index}".encode()).digest()
    rng = random.Random(int.from_bytes(digest[:8], "big"))
    background = _pick(rng, BACKGROUNDS)
    groups, relation = (
        _generate_pair(rng) if rng.random() < _PAIR_SHARE else (_generate_row(rng), None)
    )
    wording = int.from_bytes(digest[8:16], "big")
    return Scene(f"scene_{split}_{index:04d}.jpg", background, groups, relation, wording)


def _generate_row(rng: random.Random) -> tuple[ShapeGroup]:
    count = _pick(rng, _ROW_COUNTS)
    size = _pick(rng, tuple(DIAMETERS))
    middle = (WIDTH / 2 + _jitter(rng, 8), HEIGHT / 2 + _jitter(rng, 24))
    offsets = [(i - (count - 1) / 2) * _PITCH[size] for i in range(count)]
    centres = [(middle[0] + offset, middle[1] + _jitter(rng, 3)) for offset in offsets]
    return (_make_group(rng, _pick(rng, SHAPES), _pick(rng, COLOURS), size, centres),)


def _generate_pair(rng: random.Random) -> tuple[tuple[ShapeGroup, ShapeGroup], str]:
    relation = _pick(rng, _RELATIONS)
    x, y = WIDTH / 2 + _jitter(rng, 8), HEIGHT / 2 + _jitter(rng, 3)
    # Both shapes have one colour, because pooled features contain which colours a photo has,
    # but hardly which shape has which. "inside" needs two, or the inner shape would be invisible.
    colour = _pick(rng, COLOURS)
    if relation == "inside":
        inner_colour = _pick(rng, tuple(name for name in ("black", "white") if name != colour))
        # Only a circle or a square has room for every small shape.
        outer = _make_group(rng, _pick(rng, ("circle", "square")), colour, "large", [(x, y)])
        inner_centre = (x + _jitter(rng, 3), y + _jitter(rng, 3))
        inner = _make_group(rng, _pick(rng, SHAPES), inner_colour, "small", [inner_centre])
        return (inner, outer), relation
    dx, dy = _OFFSETS[relation]
    centres = [
        (x + side * dx / 2 + _jitter(rng, 6), y + side * dy / 2 + _jitter(rng, 2))
        for side in (1, -1)
    ]
    first_shape = _pick(rng, SHAPES)
    second_shape = _pick(rng, tuple(name for name in SHAPES if name != first_shape))
    first = _make_group(rng, first_shape, colour, "large", centres[:1])
    second = _make_group(rng, second_shape, colour, "large", centres[1:])
    return (first, second), relation


def _make_group(
    rng: random.Random,
    shape: str,
    colour: str,
    size: str,
    centres: Sequence[tuple[float, float]],
) -> ShapeGroup:
    diameter = DIAMETERS[size] * (1 + _jitter(rng, 0.04))
    return ShapeGroup(shape, colour, size, round(diameter, 2), _round_points(centres))


def _round_points(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    return tuple((round(x, 2), round(y, 2)) for x, y in points)


def _pick(rng: random.Random, options: Sequence[_Option]) -> _Option:
    # random() is the only method that gives the same numbers in every version of Python.
    return options[int(rng.random() * len(options))]


def _jitter(rng: random.Random, limit: float) -> float:
    return (2 * rng.random() - 1) * limit
