"""Five true captions of a drawn scene, in the style of Flickr8k."""

import random

from pipeline.datasets.sample.scenes import Scene, Thing

_COUNTS = {1: "a", 2: "two", 3: "three"}
_ROWS = {2: "side by side", 3: "in a row"}
_CONVERSE = {"left of": "right of", "above": "below"}
_PHRASES = {"left of": "to the left of", "right of": "to the right of"}
_TAILS = {"left of": "to its left", "above": "above it", "inside": "inside it"}

# The wordings share most of their words, so that any one caption of a scene is a good
# reference for the others, and differ in order, so that no fixed sentence fits them all.
_GROUP_WORDINGS = (
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
_ROW_WORDINGS = (
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
_CONVERSE_WORDINGS = (
    "{second} is {converse} {first}",
    "{second} {converse} {first} on a {background} background",
)


def captions(scene: Scene) -> list[str]:
    """Five different true captions, as people write them in Flickr8k.

    Each starts with a capital and ends in " ."; the choice and order of wordings are the
    scene's own.
    """
    words = {"background": scene.background}
    if scene.relation is None:
        (thing,) = scene.things
        wordings = [*_GROUP_WORDINGS]
        words |= {"group": _noun_phrase(thing, sized=True), "be": "is"}
        if thing.count > 1:
            wordings += _ROW_WORDINGS
            words |= {"be": "are", "row": _ROWS[thing.count]}
    else:
        first, second = scene.things
        wordings = [*_PAIR_WORDINGS]
        # No size words: side by side both are large, and what is inside has to be smaller.
        words |= {
            "first": _noun_phrase(first, sized=False),
            "second": _noun_phrase(second, sized=False),
            "relation": _PHRASES.get(scene.relation, scene.relation),
            "tail": _TAILS[scene.relation],
        }
        if scene.relation in _CONVERSE:
            wordings += _CONVERSE_WORDINGS
            converse = _CONVERSE[scene.relation]
            words["converse"] = _PHRASES.get(converse, converse)
    rng = random.Random(scene.wording)
    # Sorting by random() and not shuffle(): of the generator's methods only random() is
    # promised to give the same numbers in every Python.
    chosen = sorted(wordings, key=lambda _: rng.random())[:5]
    sentences = (wording.format(**words) for wording in chosen)
    return [f"{sentence[0].upper()}{sentence[1:]} ." for sentence in sentences]


def _noun_phrase(thing: Thing, *, sized: bool) -> str:
    plural = "s" if thing.count > 1 else ""
    words = [*([thing.size] if sized else []), thing.colour, f"{thing.shape}{plural}"]
    return " ".join([_COUNTS[thing.count], *words])
