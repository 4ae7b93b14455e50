import itertools

import pytest

from pipeline.reporting.length_groups import group_by_length
from tests.support.report import search_metrics


def group_sizes(lengths: list[int]) -> list[tuple[int, int, int]]:
    references = {f"{row:03}": ["a dog runs", "b c"] for row in range(len(lengths))}
    search = search_metrics("greedy", ["dog " * length for length in lengths], references)
    return [(group.shortest, group.longest, group.captions) for group in group_by_length(search)]


def test_one_length_is_one_group() -> None:
    assert group_sizes([4]) == [(4, 4, 1)]
    assert group_sizes([0, 0]) == [(0, 0, 2)]


def test_neighbouring_lengths_share_a_group_until_it_has_a_tenth() -> None:
    assert group_sizes([5] * 10 + [6] * 10 + [9]) == [(5, 5, 10), (6, 9, 11)]
    assert group_sizes([3, 4] + [5] * 10 + [6] * 10) == [(3, 5, 12), (6, 6, 10)]
    assert group_sizes([3, 4, 5, 6]) == [(length, length, 1) for length in (3, 4, 5, 6)]


@pytest.mark.parametrize("photos", [1, 9, 10, 11, 200])
def test_every_caption_is_in_a_group_that_is_large_enough(photos: int) -> None:
    groups = group_sizes([(7 * row) % 23 for row in range(photos)])
    assert sum(captions for _, _, captions in groups) == photos
    assert all(10 * captions >= photos for _, _, captions in groups)
    assert all(left[1] < right[0] for left, right in itertools.pairwise(groups))


def test_a_group_has_the_mean_scores_of_its_captions() -> None:
    references = {"a": ["a dog runs", "a dog"], "b": ["the cat sat", "a cat"], "c": ["x y", "z"]}
    search = search_metrics("greedy", ["a dog runs", "a dog sat", "x"], references)
    one, three = group_by_length(search)
    assert one.cider_d == pytest.approx(search.scores.cider_d[2])
    assert three.cider_d == pytest.approx(search.scores.cider_d[:2].mean())
    assert three.rouge_l == pytest.approx(search.scores.rouge_l[:2].mean())
