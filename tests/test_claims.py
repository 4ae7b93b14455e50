import dataclasses

import pytest

from pipeline.datasets.scenes import Scene, Thing
from tests.claims import describes

CIRCLE = Thing("circle", "red", "large", 88.0, ((100.0, 120.0),))
SQUARE = Thing("square", "red", "large", 88.0, ((220.0, 120.0),))
PAIR = Scene("pair.jpg", "pink", (CIRCLE, SQUARE), "left of", 0)
ROW = dataclasses.replace(CIRCLE, size="small", centres=((90.0, 9.0), (160.0, 9.0), (230.0, 9.0)))
GROUP = Scene("group.jpg", "grey", (ROW,), None, 0)


def wrong(caption: str, scene: Scene) -> set[str]:
    return {aspect for aspect, right in describes(caption, scene).items() if not right}


@pytest.mark.parametrize(
    "caption",
    [
        "A red circle to the left of a red square .",
        "a red square is to the right of a red circle on a pink background",
        "To the left of a red square is a red circle .",
        "To the right of a red circle is a red square .",
        "A red square with a red circle to its left .",
        "A red circle with a red square to its right on a pink background .",
    ],
)
def test_every_way_to_say_a_relation_is_read(caption: str) -> None:
    assert wrong(caption, PAIR) == set()


@pytest.mark.parametrize(
    ("caption", "aspects"),
    [
        ("a red square to the left of a red circle", {"shape"}),
        ("a red circle to the right of a red square", {"shape"}),
        ("a red square with a red circle to its right", {"shape"}),
        ("a red circle above a red square", {"relation"}),
        ("a red circle and a red square", {"relation"}),
        ("a blue circle to the left of a red square", {"colour"}),
        ("two red circles to the left of a red square", {"count"}),
        ("a small red circle to the left of a red square", {"size"}),
        ("a red circle to the left of a red square on a brown background", {"background"}),
        ("a red circle", {"count", "colour", "shape", "relation", "size"}),
        ("", {"count", "colour", "shape", "relation", "size"}),
    ],
)
def test_what_is_wrong_about_a_pair_is_named(caption: str, aspects: set[str]) -> None:
    assert wrong(caption, PAIR) == aspects


@pytest.mark.parametrize(
    ("caption", "aspects"),
    [
        ("Three small red circles in a row .", set()),
        ("a grey picture with three red circles in it", set()),
        ("two small red circles", {"count"}),
        ("three red circles side by side", {"relation"}),
        ("three large red circles on a pink background", {"size", "background"}),
        ("three red circles inside a red square", {"count", "colour", "shape", "relation", "size"}),
    ],
)
def test_what_is_wrong_about_a_group_is_named(caption: str, aspects: set[str]) -> None:
    assert wrong(caption, GROUP) == aspects
