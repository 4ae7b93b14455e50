import itertools
import re

import pytest

from pipeline.datasets.sample.scenes import DIAMETERS, HEIGHT, WIDTH, draw_scene

SCENES = [
    draw_scene(2026, split, index)
    for split, count in (("train", 360), ("dev", 40), ("test", 80))
    for index in range(count)
]


def test_equal_arguments_give_an_equal_scene() -> None:
    assert draw_scene(2026, "test", 7) == draw_scene(2026, "test", 7)


@pytest.mark.parametrize(("seed", "split", "index"), [(1, "test", 7), (2026, "dev", 7)])
def test_seed_and_split_change_the_scene(seed: int, split: str, index: int) -> None:
    assert draw_scene(seed, split, index).things != draw_scene(2026, "test", 7).things


def test_no_two_scenes_are_alike() -> None:
    assert len({(scene.background, scene.things) for scene in SCENES}) == len(SCENES)


def test_names_sort_and_tell_the_split() -> None:
    assert all(re.fullmatch(r"scene_(train|dev|test)_\d{4}\.jpg", s.name) for s in SCENES)
    assert len({scene.name for scene in SCENES}) == len(SCENES)


def test_shapes_lie_inside_the_photo() -> None:
    for scene in SCENES:
        for thing in scene.things:
            reach = 0.61 * thing.diameter  # the top of a triangle, the farthest of all
            for x, y in thing.centres:
                assert x - 0.54 * thing.diameter >= 0
                assert x + 0.54 * thing.diameter <= WIDTH
                assert y - reach >= 0
                assert y + reach <= HEIGHT


def test_sizes_differ_more_than_they_vary() -> None:
    things = [thing for scene in SCENES for thing in scene.things]
    largest_small = max(thing.diameter for thing in things if thing.size == "small")
    smallest_large = min(thing.diameter for thing in things if thing.size == "large")
    assert set(DIAMETERS) == {thing.size for thing in things}
    assert smallest_large > 1.8 * largest_small


def test_a_pair_is_two_different_single_things() -> None:
    pairs = [scene for scene in SCENES if scene.relation is not None]
    assert len(pairs) > 200
    for scene in pairs:
        first, second = scene.things
        assert (first.count, second.count) == (1, 1)
        assert (first.shape, first.colour) != (second.shape, second.colour)
        assert second.colour != first.colour or scene.relation != "inside"


def test_the_relation_agrees_with_the_positions() -> None:
    for scene in SCENES:
        if scene.relation is None:
            continue
        (x1, y1), (x2, y2) = (thing.centres[0] for thing in scene.things)
        match scene.relation:
            case "left of":
                assert x2 - x1 > 100
                assert abs(y1 - y2) < 20
            case "above":
                assert y2 - y1 > 90
                assert abs(x1 - x2) < 20
            case relation:
                assert relation == "inside"
                assert abs(x1 - x2) + abs(y1 - y2) < 10


def test_the_shapes_of_a_group_do_not_touch() -> None:
    for scene in SCENES:
        if scene.relation is None:
            (thing,) = scene.things
            xs = [x for x, _ in thing.centres]
            gaps = [right - left for left, right in itertools.pairwise(xs)]
            assert all(gap > 1.07 * thing.diameter for gap in gaps)
