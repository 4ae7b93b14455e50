import numpy as np
import pytest

from pipeline.metrics.scorer import METRICS, Scorer, Scores
from pipeline.metrics.significance import bootstrap_intervals, paired_differences

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
    assert difference.p_value == pytest.approx(1 / 1001)


def test_a_run_does_not_differ_from_itself(scorer: Scorer) -> None:
    scores = score_with_errors(scorer, 2)
    for difference in paired_differences(scores, scores).values():
        assert difference.interval == (0.0, 0.0)
        assert difference.p_value == 1


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
