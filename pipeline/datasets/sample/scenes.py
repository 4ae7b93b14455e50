"""Drawn scenes: what is in one.

A scene holds either a group (one to three equal shapes in a row) or a pair (two different
things and the relation between them), on a plain background. Everything
about it follows from the seed, the split and the index, so a split can grow or shrink
without changing any scene of another.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

_Option = TypeVar("_Option")

WIDTH, HEIGHT = 320, 240  # pixels

# What a linear probe on frozen Xception features tells apart after 360 scenes. It took
# yellow for red and, on white or black, most colours for one another; on backgrounds of
# middling brightness these five stay distinct.
COLOURS = ("black", "white", "red", "green", "blue")
SHAPES = ("circle", "square", "triangle", "star")
BACKGROUNDS = ("grey", "pink", "brown")
# Pixels. More than two to one, so that nobody doubts which word fits.
DIAMETERS = {"small": 42.0, "large": 88.0}

_PAIR_SHARE = 0.6
_COUNTS = (1, 2, 2, 3, 3)  # single shapes are in the pairs as well

# Left and right are rarer: which side a thing is on is nearly lost in the pooled features
# of a CNN trained on mirrored photos (a linear probe guesses; above and inside it knows).
_RELATIONS = ("left of", "above", "above", "inside", "inside")

# Distance in pixels between the centres of a group's neighbours: clear gaps, and three
# large shapes still fit across the photo.
_PITCH = {"small": 68.0, "large": 102.0}
# Where the first thing of a pair stands, seen from the second: (x, y) in pixels.
# A pair is told from the left or from above, as one reads: which of the two comes first is
# then to be seen in the photo.
_OFFSETS = {
    "left of": (-144.0, 0.0),
    "above": (0.0, -112.0),
    "inside": (0.0, 0.0),
}


@dataclass(frozen=True)
class Thing:
    """Equal shapes of one colour.

    `diameter` is in pixels; `centres` holds one (x, y) in pixels for each of them, from
    the left, with y growing downwards.
    """

    shape: str
    colour: str
    size: str
    diameter: float
    centres: tuple[tuple[float, float], ...]

    @property
    def count(self) -> int:
        """How many shapes there are, 1 to 3."""
        return len(self.centres)


@dataclass(frozen=True)
class Scene:
    """What a photo shows: one group, or two single things and their relation.

    `name` is the photo's file name. `relation` says where the first thing is, seen from
    the second: "left of", "above" or "inside"; it is None for a group. `wording` seeds
    the choice of words.
    """

    name: str
    background: str
    things: tuple[Thing, ...]
    relation: str | None
    wording: int


def draw_scene(seed: int, split: str, index: int) -> Scene:
    """Draw scene number `index` of a split; equal arguments give an equal scene."""
    # A seed of its own for each scene: it depends on no other scene, nor on how many there are.
    digest = hashlib.sha256(f"{seed}/{split}/{index}".encode()).digest()
    rng = random.Random(int.from_bytes(digest[:8], "big"))
    background = _pick(rng, BACKGROUNDS)
    things, relation = _draw_pair(rng) if rng.random() < _PAIR_SHARE else (_draw_group(rng), None)
    wording = int.from_bytes(digest[8:16], "big")
    return Scene(f"scene_{split}_{index:04d}.jpg", background, things, relation, wording)


def _draw_group(rng: random.Random) -> tuple[Thing]:
    count = _pick(rng, _COUNTS)
    size = _pick(rng, tuple(DIAMETERS))
    middle = (WIDTH / 2 + _jitter(rng, 8), HEIGHT / 2 + _jitter(rng, 24))
    places = [(i - (count - 1) / 2) * _PITCH[size] for i in range(count)]
    centres = [(middle[0] + place, middle[1] + _jitter(rng, 3)) for place in places]
    return (_draw_thing(rng, _pick(rng, SHAPES), _pick(rng, COLOURS), size, centres),)


def _draw_pair(rng: random.Random) -> tuple[tuple[Thing, Thing], str]:
    relation = _pick(rng, _RELATIONS)
    x, y = WIDTH / 2 + _jitter(rng, 8), HEIGHT / 2 + _jitter(rng, 3)
    # One colour for both, save inside, where it would hide the inner one: pooled features
    # tell which colours a photo has, but hardly which of two things has which.
    colour = _pick(rng, COLOURS)
    if relation == "inside":
        inner_colour = _pick(rng, tuple(tone for tone in ("black", "white") if tone != colour))
        # Only a circle or a square has room for every small shape.
        frame = _draw_thing(rng, _pick(rng, ("circle", "square")), colour, "large", [(x, y)])
        inner = (x + _jitter(rng, 3), y + _jitter(rng, 3))
        content = _draw_thing(rng, _pick(rng, SHAPES), inner_colour, "small", [inner])
        return (content, frame), relation
    dx, dy = _OFFSETS[relation]
    centres = [
        (x + side * dx / 2 + _jitter(rng, 6), y + side * dy / 2 + _jitter(rng, 2))
        for side in (1, -1)
    ]
    shape = _pick(rng, SHAPES)
    other = _pick(rng, tuple(name for name in SHAPES if name != shape))
    first = _draw_thing(rng, shape, colour, "large", centres[:1])
    second = _draw_thing(rng, other, colour, "large", centres[1:])
    return (first, second), relation


def _draw_thing(
    rng: random.Random,
    shape: str,
    colour: str,
    size: str,
    centres: Sequence[tuple[float, float]],
) -> Thing:
    diameter = DIAMETERS[size] * (1 + _jitter(rng, 0.04))
    return Thing(shape, colour, size, round(diameter, 2), _rounded(centres))


def _rounded(centres: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    return tuple((round(x, 2), round(y, 2)) for x, y in centres)


def _pick(rng: random.Random, options: Sequence[_Option]) -> _Option:
    # Of the generator's methods only random() gives the same numbers in every Python.
    return options[int(rng.random() * len(options))]


def _jitter(rng: random.Random, most: float) -> float:
    return (2 * rng.random() - 1) * most
