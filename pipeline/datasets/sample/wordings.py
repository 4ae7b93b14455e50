"""Wordings: five true captions for each scene, in the style of Flickr8k."""

import random

from pipeline.datasets.sample.scenes import Scene, ShapeGroup

_COUNT_WORDS = {1: "a", 2: "two", 3: "three"}
_ROWS = {2: "side by side", 3: "in a row"}
_INVERSE = {"left of": "right of", "above": "below"}
_PHRASES = {"left of": "to the left of", "right of": "to the right of"}
_TAILS = {"left of": "to its left", "above": "above it", "inside": "inside it"}

# The wordings share most of their words, so that each caption of a scene is a good reference
# for the others. They differ in word order, so that no fixed sentence matches them all.
_ROW_WORDINGS = (
    "{group} on a {background} background",
    "there {be} {group} on a {background} background",
    "a {background} background with {group}",
    "{group} in front of a {background} background",
    "{group} against a {background} background",
    "{group} {be} shown against a {background} background",
    "on a {background} background {be} {group}",
    "against a {background} background {be} {group}",
    "a picture of {group}",
    "a {background} picture with {group} in it",
    "{group} in a {background} picture",
)
_SEVERAL_WORDINGS = (
    "{group} {row} on a {background} background",
    "{group} {be} {row} against a {background} background",
    "{group} {row}",
)
_PAIR_WORDINGS = (
    "{first} {relation} {second}",
    "{first} is {relation} {second}",
    "there is {first} {relation} {second}",
    "{first} {relation} {second} on a {background} background",
    "{first} is {relation} {second} on a {background} background",
    "a {background} background with {first} {relation} {second}",
    "against a {background} background {first} is {relation} {second}",
    "{relation} {second} is {first}",
    "{second} with {first} {tail}",
    "{second} with {first} {tail} on a {background} background",
)
_INVERSE_WORDINGS = (
    "{second} is {inverse} {first}",
    "{second} {inverse} {first} on a {background} background",
)


def caption_scene(scene: Scene) -> list[str]:
    """Return five different true captions, as people write them in Flickr8k.

    Each starts with a capital letter and ends in " ."; the choice and order of wordings
    depend on the scene alone.
    """
    words = {"background": scene.background}
    if scene.relation is None:
        (group,) = scene.groups
        wordings = [*_ROW_WORDINGS]
        words |= {"group": _noun_phrase(group, with_size=True), "be": "is"}
        if group.count > 1:
            wordings += _SEVERAL_WORDINGS
            words |= {"be": "are", "row": _ROWS[group.count]}
    else:
        first, second = scene.groups
        wordings = [*_PAIR_WORDINGS]
        # No size words: two shapes side by side are both large, and an inner one is always smaller.
        words |= {
            "first": _noun_phrase(first, with_size=False),
            "second": _noun_phrase(second, with_size=False),
            "relation": _PHRASES.get(scene.relation, scene.relation),
            "tail": _TAILS[scene.relation],
        }
        if scene.relation in _INVERSE:
            wordings += _INVERSE_WORDINGS
            inverse = _INVERSE[scene.relation]
            words["inverse"] = _PHRASES.get(inverse, inverse)
    rng = random.Random(scene.wording)
    # Sorted by random() instead of shuffle(): random() is the only method that is guaranteed to
    # give the same numbers in every version of Python.
    chosen = sorted(wordings, key=lambda _: rng.random())[:5]
    sentences = (wording.format(**words) for wording in chosen)
    return [f"{sentence[0].upper()}{sentence[1:]} ." for sentence in sentences]


def _noun_phrase(group: ShapeGroup, *, with_size: bool) -> str:
    plural = "s" if group.count > 1 else ""
    words = [*([group.size] if with_size else []), group.colour, f"{group.shape}{plural}"]
    return " ".join([_COUNT_WORDS[group.count], *words])
