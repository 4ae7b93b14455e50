"""What a caption claims about a drawn scene, and whether it is true.

It reads captions with a grammar of its own, not with the wordings they were made from, so
it judges the sentences of a captioner as well.
"""

import re
from collections.abc import Mapping, Sequence

from pipeline.datasets.sample.scenes import BACKGROUNDS, COLOURS, DIAMETERS, SHAPES, Scene

# What has to be said, and said rightly, of every scene.
NEEDED = ("count", "colour", "shape", "relation")

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
# Words that claim something wherever they stand; "a" may be of a background.
_CLAIMS = {
    "count": {"one", "two", "three"},
    "colour": {*COLOURS},
    "shape": {word for shape in SHAPES for word in (shape, f"{shape}s")},
    "relation": {*_TOLD_AS},
}


def describes(caption: str, scene: Scene) -> dict[str, bool]:
    """Compare a caption, in any case, with the scene it is said of.

    Returns whether it is right about the scene's "count", "colour", "shape", "relation",
    "size" and "background". The first four (`NEEDED`) have to be said, of every thing and
    of the right one, and nothing beside them; size and background may be left out, but not
    be wrong. Of a pair told the wrong way round, it is the relation that is wrong.
    """
    text = caption.lower()
    said = list(_THING.finditer(text))
    relation, swapped = _read_relation(text, said)
    if swapped:
        said.reverse()
    verdict = _compare(said, scene) | {
        "relation": relation == scene.relation and _row_fits(text, scene)
    }
    if scene.relation is not None:
        # Two readings of a mistake, the things or their places: the lesser one counts.
        turned = _compare(said[::-1], scene) | {"relation": False}
        verdict = max(turned, verdict, key=lambda reading: sum(reading.values()))
    unread = {*re.findall(r"[a-z]+", _RELATION.sub(" ", _THING.sub(" ", text), count=1))}
    return {
        **{
            aspect: right and unread.isdisjoint(_CLAIMS.get(aspect, ()))
            for aspect, right in verdict.items()
        },
        "background": all(name == scene.background for name in _BACKGROUND.findall(text)),
    }


def is_true(verdict: Mapping[str, bool]) -> bool:
    """Return whether all that is needed is said, and said rightly."""
    return all(verdict[aspect] for aspect in NEEDED)


def _compare(said: Sequence[re.Match[str]], scene: Scene) -> dict[str, bool]:
    """Return what the things said have in common with the scene's, in their order."""
    things = scene.groups
    return {
        "count": [_COUNTS[match["count"]] for match in said] == [t.count for t in things],
        "colour": [match["colour"] for match in said] == [t.colour for t in things],
        "shape": [match["shape"] for match in said] == [t.shape for t in things],
        "size": len(said) == len(things)
        and all(m["size"] in (None, t.size) for m, t in zip(said, things, strict=True)),
    }


def _row_fits(text: str, scene: Scene) -> bool:
    return all(_ROW_OF[found[0]] == scene.groups[0].count for found in _ROW.finditer(text))


def _read_relation(text: str, said: list[re.Match[str]]) -> tuple[str | None, bool]:
    """The relation, and whether the thing it is said of is the second one mentioned."""
    match = _RELATION.search(text)
    if match is None:
        return None, False
    relation, swapped = _TOLD_AS[match[1] or match[2] or match[3]]
    # "A left of B", but "left of B is A" and "B with A to its left".
    between = len(said) > 1 and said[0].end() <= match.start() < said[1].start()
    return relation, swapped == between
