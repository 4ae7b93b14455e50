import numpy as np
import pytest

from pipeline.metrics.scorer import METRICS, Scorer, Scores
from pipeline.metrics.significance import (
    MIN_IMAGES,
    bootstrap_intervals,
    few_images_note,
    paired_differences,
)

RANDOM = np.random.default_rng(1)
WORDS = list("abcdefghijklmnop")


def draw_captions(count: int) -> list[list[str]]:
    return [list(RANDOM.choice(WORDS, 8)) for _ in range(count)]


def replace_last_words(captions: list[list[str]], n_words: int) -> list[list[str]]:
    """Replace the last words of each caption by others."""
    return [[*caption[: 8 - n_words], *["?"] * n_words] for caption in captions]


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer([[caption] for caption in draw_captions(60)])


def score_with_errors(scorer: Scorer, n_words: int) -> Scores:
    """Score the references themselves, with their last words replaced."""
    captions = [list(references[0]) for references in scorer.references.by_image]
    return scorer.score(replace_last_words(captions, n_words))


def test_intervals_cover_the_scores_of_resampled_photos(scorer: Scorer) -> None:
    captions = [list(references[0]) for references in scorer.references.by_image]
    half_right = scorer.score([*captions[:30], *replace_last_words(captions[30:], 8)])
    intervals = bootstrap_intervals(half_right)
    assert list(intervals) == list(METRICS)
    # Each of the 60 photos scores 100 or 0, so their mean has a deviation of 50 / sqrt(60).
    low, high = intervals["ROUGE-L"]
    deviation = 50 / np.sqrt(60)
    assert (low, high) == pytest.approx((50 - 1.96 * deviation, 50 + 1.96 * deviation), abs=1.5)
    assert bootstrap_intervals(half_right) == intervals
    assert all(low <= half_right.corpus[name] <= high for name, (low, high) in intervals.items())


def test_the_interval_of_equal_scores_is_a_point(scorer: Scorer) -> None:
    for low, high in bootstrap_intervals(score_with_errors(scorer, 0)).values():
        assert low == pytest.approx(high)


def test_a_clear_difference_is_significant(scorer: Scorer) -> None:
    first, second = score_with_errors(scorer, 4), score_with_errors(scorer, 1)
    difference = paired_differences(first, second)["ROUGE-L"]
    assert (difference.first, difference.second) == pytest.approx((50, 87.5))
    assert difference.interval == pytest.approx((37.5, 37.5))
    assert difference.p_value == pytest.approx(2 / 1001)


def test_a_run_does_not_differ_from_itself(scorer: Scorer) -> None:
    scores = score_with_errors(scorer, 2)
    for difference in paired_differences(scores, scores).values():
        assert difference.interval == (0.0, 0.0)
        assert difference.p_value == 1


@pytest.mark.parametrize("samples", [100, 200, 999, 1000])
def test_an_interval_excludes_0_exactly_if_its_p_value_is_significant(samples: int) -> None:
    """Runs of all degrees of difference, many of them near the border."""
    random = np.random.default_rng(3)
    counts = random.integers(0, 9, (2, 30, 10))
    verdicts = set()
    for shift in np.linspace(0, 8, 25):
        first = Scores(counts[0], random.normal(50, 10, 30), random.normal(50, 10, 30))
        second = Scores(counts[1], first.rouge_l + random.normal(shift, 12, 30), first.cider_d)
        for difference in paired_differences(first, second, samples).values():
            low, high = difference.interval
            assert (low > 0 or high < 0) == difference.significant == (difference.p_value < 0.05)
            verdicts.add(difference.significant)
    assert verdicts == {False, True}


def test_one_rule_says_when_photos_are_too_few() -> None:
    note = few_images_note(4)
    assert note is not None
    assert note.startswith("4 photos are too few to tell a difference from chance: use 30 or more")
    assert str(few_images_note(1)).startswith("1 photo is too few")
    assert few_images_note(MIN_IMAGES - 1) is not None
    assert few_images_note(MIN_IMAGES) is None


def test_p_values_of_chance_differences_are_uniform() -> None:
    """If runs differ by chance, one p-value in twenty is below 0.05, and not more."""
    random = np.random.default_rng(2)
    counts = np.zeros((40, 10), np.int64)

    def draw_scores() -> Scores:
        values = random.normal(50, 10, 40)
        return Scores(counts, values, values)

    p_values = [
        paired_differences(draw_scores(), draw_scores(), samples=200)["ROUGE-L"].p_value
        for _ in range(200)
    ]
    assert 0.35 < np.mean(p_values) < 0.65
    assert 0.01 <= np.mean(np.array(p_values) < 0.05) <= 0.1
