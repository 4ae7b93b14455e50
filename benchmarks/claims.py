"""Checks what a caption claims about a drawn scene.

It parses captions with a grammar of its own, not with the templates that generated the
references, so that it can check the sentences of a captioner as well.
"""

import re
from collections.abc import Mapping, Sequence

from pipeline.datasets.sample.scenes import BACKGROUNDS, COLOURS, DIAMETERS, SHAPES, Scene

# The aspects of a scene that a caption has to mention, and get right.
REQUIRED = ("count", "colour", "shape", "relation")

_COUNTS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3}
_OBJECT = re.compile(
    rf"\b(?P<count>{'|'.join(_COUNTS)}) (?:(?P<size>{'|'.join(DIAMETERS)}) )?"
    rf"(?P<colour>{'|'.join(COLOURS)}) (?P<shape>{'|'.join(SHAPES)})s?\b"
)
_BACKGROUND = re.compile(rf"\b({'|'.join(BACKGROUNDS)}) (?:background|picture)\b")
_RELATION = re.compile(r"\b(?:(left|right) of|to its (left|right)|(above|below|inside))\b")
_ROW = re.compile(r"\b(?:side by side|in a row)\b")
# Each relation as scenes store it, and whether the two objects are swapped.
_CANONICAL = {
    "left": ("left of", False),
    "right": ("left of", True),
    "above": ("above", False),
    "below": ("above", True),
    "inside": ("inside", False),
}
_ROW_COUNTS = {"side by side": 2, "in a row": 3}
# Words that make a claim wherever they occur; "a" is none, because it may precede a background.
_CLAIM_WORDS = {
    "count": {"one", "two", "three"},
    "colour": {*COLOURS},
    "shape": {word for shape in SHAPES for word in (shape, f"{shape}s")},
    "relation": {*_CANONICAL},
}


def check_claims(caption: str, scene: Scene) -> dict[str, bool]:
    """Compare a caption, in any case, with the scene that it describes.

    Returns whether the scene's "count", "colour", "shape", "relation", "size" and "background"
    are right. The first four (`REQUIRED`) must be mentioned and right for every object, and the
    caption must not mention others; size and background may be left out, but not be wrong. If a
    pair is mentioned in the wrong order, it is the relation that is wrong.
    """
    text = caption.lower()
    objects = list(_OBJECT.finditer(text))
    relation, swapped = _parse_relation(text, objects)
    if swapped:
        objects.reverse()
    verdict = _compare_objects(objects, scene) | {
        "relation": relation == scene.relation and _row_fits(text, scene)
    }
    if scene.relation is not None:
        # A mistake can be read as wrong objects or as a wrong order: take the reading with the
        # fewer mistakes.
        wrong_order = _compare_objects(objects[::-1], scene) | {"relation": False}
        verdict = max(wrong_order, verdict, key=lambda reading: sum(reading.values()))
    rest = _RELATION.sub(" ", _OBJECT.sub(" ", text), count=1)
    unparsed_words = {*re.findall(r"[a-z]+", rest)}
    return {
        **{
            aspect: right and unparsed_words.isdisjoint(_CLAIM_WORDS.get(aspect, ()))
            for aspect, right in verdict.items()
        },
        "background": all(name == scene.background for name in _BACKGROUND.findall(text)),
    }


def is_true(verdict: Mapping[str, bool]) -> bool:
    """Return whether all required aspects are mentioned and right."""
    return all(verdict[aspect] for aspect in REQUIRED)


def _compare_objects(objects: Sequence[re.Match[str]], scene: Scene) -> dict[str, bool]:
    """Return in which aspects the mentioned objects equal the scene's, in this order."""
    groups = scene.groups
    return {
        "count": [_COUNTS[match["count"]] for match in objects] == [t.count for t in groups],
        "colour": [match["colour"] for match in objects] == [t.colour for t in groups],
        "shape": [match["shape"] for match in objects] == [t.shape for t in groups],
        "size": len(objects) == len(groups)
        and all(m["size"] in (None, t.size) for m, t in zip(objects, groups, strict=True)),
    }


def _row_fits(text: str, scene: Scene) -> bool:
    return all(_ROW_COUNTS[match[0]] == scene.groups[0].count for match in _ROW.finditer(text))


def _parse_relation(text: str, objects: list[re.Match[str]]) -> tuple[str | None, bool]:
    """Return the relation, and whether its subject is the object mentioned second."""
    match = _RELATION.search(text)
    if match is None:
        return None, False
    relation, swapped = _CANONICAL[match[1] or match[2] or match[3]]
    # "A left of B", but "left of B is A" and "B with A to its left".
    between = len(objects) > 1 and objects[0].end() <= match.start() < objects[1].start()
    return relation, swapped == between
