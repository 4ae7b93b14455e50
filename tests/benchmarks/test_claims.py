import dataclasses
from collections.abc import Iterator

import pytest

from benchmarks.claims import check_claims, is_true
from pipeline.datasets.sample.scenes import COLOURS, SHAPES, Scene, ShapeGroup, generate_scene
from pipeline.datasets.sample.wordings import caption_scene

CIRCLE = ShapeGroup("circle", "red", "large", 88.0, ((100.0, 120.0),))
SQUARE = ShapeGroup("square", "red", "large", 88.0, ((220.0, 120.0),))
PAIR = Scene("pair.jpg", "pink", (CIRCLE, SQUARE), "left of", 0)
ROW = dataclasses.replace(CIRCLE, size="small", centres=((90.0, 9.0), (160.0, 9.0), (230.0, 9.0)))
GROUP = Scene("group.jpg", "grey", (ROW,), None, 0)

# Groups of words: exchanging a word for another of its group makes a true caption false.
EXCHANGEABLE = (
    ("a", "two", "three"),
    COLOURS,
    SHAPES,
    tuple(f"{shape}s" for shape in SHAPES),
    ("left", "right", "above", "below", "inside"),
)


def wrong_aspects(caption: str, scene: Scene) -> set[str]:
    return {aspect for aspect, right in check_claims(caption, scene).items() if not right}


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
def test_every_wording_of_a_relation_is_understood(caption: str) -> None:
    assert wrong_aspects(caption, PAIR) == set()


@pytest.mark.parametrize(
    ("caption", "aspects"),
    [
        ("a red square to the left of a red circle", {"relation"}),
        ("a red circle to the right of a red square", {"relation"}),
        ("a red square with a red circle to its right", {"relation"}),
        ("a red circle to the left of a red star", {"shape"}),
        ("a red square to the left of a red star", {"shape"}),
        ("a red circle above a red square", {"relation"}),
        ("a red circle and a red square", {"relation"}),
        ("a blue circle to the left of a red square", {"colour"}),
        ("two red circles to the left of a red square", {"count"}),
        ("a small red circle to the left of a red square", {"size"}),
        ("a red circle to the left of a red square on a brown background", {"background"}),
        ("a red circle to the left of a red square and two blue", {"count", "colour"}),
        ("a red circle to the left of a red square, a star", {"shape"}),
        ("a red circle to the left of a red square above", {"relation"}),
        ("a red circle", {"count", "colour", "shape", "relation", "size"}),
        ("", {"count", "colour", "shape", "relation", "size"}),
    ],
)
def test_the_wrong_aspects_of_a_pair_are_named(caption: str, aspects: set[str]) -> None:
    assert wrong_aspects(caption, PAIR) == aspects


def test_swapped_objects_are_recognized_by_their_colours() -> None:
    dot = dataclasses.replace(CIRCLE, colour="white", size="small")
    inside = Scene("inside.jpg", "pink", (dot, SQUARE), "inside", 0)
    assert wrong_aspects("a white square inside a red circle", inside) == {"shape"}
    assert wrong_aspects("a red circle inside a white square", inside) == {"colour"}
    assert wrong_aspects("a red square inside a white circle", inside) == {"relation"}


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
def test_the_wrong_aspects_of_a_group_are_named(caption: str, aspects: set[str]) -> None:
    assert wrong_aspects(caption, GROUP) == aspects


def with_one_mistake(caption: str) -> Iterator[str]:
    words = caption.split()
    for position, word in enumerate(words):
        for group in EXCHANGEABLE:
            # The "a" before a background is not a count.
            if word.lower() in group and (word.lower() != "a" or words[position + 1] in COLOURS):
                for other in set(group) - {word.lower()}:
                    yield " ".join([*words[:position], other, *words[position + 1 :]])


@pytest.mark.parametrize("seed", range(4))
def test_references_are_true_and_no_longer_after_one_mistake(seed: int) -> None:
    mistakes = 0
    for scene in (generate_scene(seed, "test", index) for index in range(500)):
        for caption in caption_scene(scene):
            assert wrong_aspects(caption, scene) == set(), caption
            for mistaken in with_one_mistake(caption):
                assert not is_true(check_claims(mistaken, scene)), mistaken
                mistakes += 1
    assert mistakes > 20_000
