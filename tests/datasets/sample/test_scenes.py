import itertools
import re

import pytest

from pipeline.datasets.sample.scenes import DIAMETERS, HEIGHT, WIDTH, generate_scene

SCENES = [
    generate_scene(2026, split, index)
    for split, count in (("train", 360), ("dev", 40), ("test", 80))
    for index in range(count)
]


def test_equal_arguments_give_an_equal_scene() -> None:
    assert generate_scene(2026, "test", 7) == generate_scene(2026, "test", 7)


@pytest.mark.parametrize(("seed", "split", "index"), [(1, "test", 7), (2026, "dev", 7)])
def test_seed_and_split_change_the_scene(seed: int, split: str, index: int) -> None:
    assert generate_scene(seed, split, index).groups != generate_scene(2026, "test", 7).groups


def test_no_two_scenes_are_alike() -> None:
    assert len({(scene.background, scene.groups) for scene in SCENES}) == len(SCENES)


def test_names_are_unique_and_contain_the_split() -> None:
    assert all(re.fullmatch(r"scene_(train|dev|test)_\d{4}\.jpg", s.name) for s in SCENES)
    assert len({scene.name for scene in SCENES}) == len(SCENES)


def test_shapes_are_inside_the_photo() -> None:
    for scene in SCENES:
        for group in scene.groups:
            radius = 0.61 * group.diameter  # to the top of a triangle, the farthest corner
            for x, y in group.centres:
                assert x - 0.54 * group.diameter >= 0
                assert x + 0.54 * group.diameter <= WIDTH
                assert y - radius >= 0
                assert y + radius <= HEIGHT


def test_sizes_differ_more_than_they_vary() -> None:
    groups = [group for scene in SCENES for group in scene.groups]
    largest_small = max(group.diameter for group in groups if group.size == "small")
    smallest_large = min(group.diameter for group in groups if group.size == "large")
    assert set(DIAMETERS) == {group.size for group in groups}
    assert smallest_large > 1.8 * largest_small


def test_a_pair_has_two_different_single_shapes() -> None:
    pairs = [scene for scene in SCENES if scene.relation is not None]
    assert len(pairs) > 200
    for scene in pairs:
        first, second = scene.groups
        assert (first.count, second.count) == (1, 1)
        assert (first.shape, first.colour) != (second.shape, second.colour)
        assert second.colour != first.colour or scene.relation != "inside"


def test_the_relation_matches_the_positions() -> None:
    for scene in SCENES:
        if scene.relation is None:
            continue
        (x1, y1), (x2, y2) = (group.centres[0] for group in scene.groups)
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


def test_the_shapes_of_a_row_do_not_touch() -> None:
    for scene in SCENES:
        if scene.relation is None:
            (group,) = scene.groups
            xs = [x for x, _ in group.centres]
            gaps = [right - left for left, right in itertools.pairwise(xs)]
            assert all(gap > 1.07 * group.diameter for gap in gaps)
