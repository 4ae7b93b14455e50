import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scoring.likeness import likeness

CAPTIONS = st.lists(st.lists(st.sampled_from("abc"), max_size=7), min_size=1, max_size=5)


def grams(caption: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(caption[i : i + order]) for i in range(len(caption) - order + 1))


def by_the_paper(one: Sequence[str], other: Sequence[str]) -> float:
    """Compute CIDEr-D of a caption against one reference, every n-gram weighing 1."""
    total = 0.0
    for order in range(1, 5):
        ours, theirs = grams(one, order), grams(other, order)
        norms = math.hypot(*ours.values()) * math.hypot(*theirs.values())
        if norms:
            total += sum(min(ours[gram], theirs[gram]) * theirs[gram] for gram in ours) / norms
    return total / 4 * math.exp(-((len(one) - len(other)) ** 2) / (2 * 6**2))


@given(CAPTIONS)
def test_it_is_that_of_the_formula(captions: list[list[str]]) -> None:
    expected = [[by_the_paper(one, other) for other in captions] for one in captions]
    found = likeness(captions)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert ((found >= 0) & (found <= 1 + 1e-12)).all()


@given(st.lists(st.sampled_from("abc"), min_size=4, max_size=9))
def test_equal_captions_of_four_words_are_as_like_as_can_be(caption: list[str]) -> None:
    np.testing.assert_allclose(likeness([caption, caption]), np.ones((2, 2)))


def test_short_captions_lack_the_longer_n_grams() -> None:
    np.testing.assert_allclose(np.diag(likeness(["", "a", "ab", "abc"])), [0, 1 / 4, 2 / 4, 3 / 4])


def test_counts_are_clipped_to_the_column_s_caption() -> None:
    found = likeness(["aaa", "abc"])
    away = 4 * math.sqrt(9) * math.sqrt(3)
    # A word said thrice meets the one of the other caption once.
    np.testing.assert_allclose([found[0, 1], found[1, 0]], [1 / away, 3 / away])


def test_ids_do_as_well_as_words() -> None:
    numbers = {"a": 4, "b": 5, "c": 6}
    captions = ["abca", "abcb", "ca"]
    as_ids = [tuple(numbers[word] for word in caption) for caption in captions]
    np.testing.assert_array_equal(likeness(as_ids), likeness(captions))
