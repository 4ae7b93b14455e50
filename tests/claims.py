"""What a caption claims about a drawn scene, and whether it is true.

It reads captions with a grammar of its own, not with the wordings they were made from, so
it judges the sentences of a captioner as well.
"""

import re

from pipeline.datasets.scenes import BACKGROUNDS, COLOURS, DIAMETERS, SHAPES, Scene

_COUNTS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3}
_THING = re.compile(
    rf"\b(?P<count>{'|'.join(_COUNTS)}) (?:(?P<size>{'|'.join(DIAMETERS)}) )?"
    rf"(?P<colour>{'|'.join(COLOURS)}) (?P<shape>{'|'.join(SHAPES)})s?\b"
)
_BACKGROUND = re.compile(rf"\b({'|'.join(BACKGROUNDS)}) (?:background|picture)\b")
_RELATION = re.compile(r"\b(?:(left|right) of|to its (left|right)|(above|below|inside))\b")
_ROW = re.compile(r"\b(?:side by side|in a row)\b")
# Each relation as the one scenes are told in, and whether the two things change places.
_TOLD_AS = {
    "left": ("left of", False),
    "right": ("left of", True),
    "above": ("above", False),
    "below": ("above", True),
    "inside": ("inside", False),
}
_ROW_OF = {"side by side": 2, "in a row": 3}


def describes(caption: str, scene: Scene) -> dict[str, bool]:
    """Compare a caption, in any case, with the scene it is said of.

    Returns whether it is right about the scene's "count", "colour", "shape", "relation",
    "size" and "background". The first four have to be said, of every thing and of the
    right one; size and background may be left out, but not be wrong.
    """
    text = caption.lower()
    said = list(_THING.finditer(text))
    relation, swapped = _read_relation(text, said)
    if swapped:
        said.reverse()
    things = scene.things
    rows = [_ROW_OF[match[0]] for match in _ROW.finditer(text)]
    counts = [_COUNTS[match["count"]] for match in said]
    in_order = len(said) == len(things)
    return {
        "count": counts == [thing.count for thing in things],
        "colour": [match["colour"] for match in said] == [thing.colour for thing in things],
        "shape": [match["shape"] for match in said] == [thing.shape for thing in things],
        "relation": relation == scene.relation and all(row == things[0].count for row in rows),
        "size": in_order
        and all(
            match["size"] in (None, thing.size) for match, thing in zip(said, things, strict=True)
        ),
        "background": all(name == scene.background for name in _BACKGROUND.findall(text)),
    }


def _read_relation(text: str, said: list[re.Match[str]]) -> tuple[str | None, bool]:
    """The relation, and whether the thing it is said of is the second one mentioned."""
    match = _RELATION.search(text)
    if match is None:
        return None, False
    relation, swapped = _TOLD_AS[match[1] or match[2] or match[3]]
    # "A left of B", but "left of B is A" and "B with A to its left".
    between = len(said) > 1 and said[0].end() <= match.start() < said[1].start()
    return relation, swapped == between
