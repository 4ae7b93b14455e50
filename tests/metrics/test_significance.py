import numpy as np
import pytest

from pipeline.metrics.scorer import METRICS, Floats, Scorer, Scores
from pipeline.metrics.significance import differences, intervals

RANDOM = np.random.default_rng(1)
WORDS = list("abcdefghijklmnop")


def drawn(photos: int) -> list[list[str]]:
    return [list(RANDOM.choice(WORDS, 8)) for _ in range(photos)]


def spoiled(captions: list[list[str]], words: int) -> list[list[str]]:
    """Put other words in the place of the last ones."""
    return [[*caption[: 8 - words], *["?"] * words] for caption in captions]


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer([[caption] for caption in drawn(60)])


def of(scorer: Scorer, words: int) -> Scores:
    return scorer.score(spoiled([list(group[0]) for group in scorer.references.groups], words))


def test_intervals_are_where_other_photos_would_score(scorer: Scorer) -> None:
    captions = [list(group[0]) for group in scorer.references.groups]
    half = scorer.score([*captions[:30], *spoiled(captions[30:], 8)])
    found = intervals(half)
    assert list(found) == list(METRICS)
    # Of 60 photos each 100 or 0, the mean of those drawn has a deviation of 50 / sqrt(60).
    low, high = found["ROUGE-L"]
    deviation = 50 / np.sqrt(60)
    assert (low, high) == pytest.approx((50 - 1.96 * deviation, 50 + 1.96 * deviation), abs=1.5)
    assert intervals(half) == found
    assert all(low <= half.corpus[name] <= high for name, (low, high) in found.items())


def test_of_equal_captions_there_is_no_interval(scorer: Scorer) -> None:
    for low, high in intervals(of(scorer, 0)).values():
        assert low == pytest.approx(high)


def test_a_clear_difference_is_told_and_its_size(scorer: Scorer) -> None:
    found = differences(of(scorer, 4), of(scorer, 1))["ROUGE-L"]
    assert (found.ours, found.theirs) == pytest.approx((50, 87.5))
    assert found.interval == pytest.approx((37.5, 37.5))
    assert found.p_value == pytest.approx(1 / 1001)


def test_a_run_differs_from_itself_by_nothing(scorer: Scorer) -> None:
    for found in differences(of(scorer, 2), of(scorer, 2)).values():
        assert found.interval == (0.0, 0.0)
        assert found.p_value == 1


def test_p_values_of_runs_that_differ_by_chance_are_spread_evenly() -> None:
    """Of differences that are chance, a twentieth is below 0.05, and not more."""
    random = np.random.default_rng(2)
    counts = np.zeros((40, 10), np.int64)

    def noise() -> Scores:
        values: Floats = random.normal(50, 10, 40)
        return Scores(counts, values, values)

    p_values = [differences(noise(), noise(), samples=200)["ROUGE-L"].p_value for _ in range(200)]
    assert 0.35 < np.mean(p_values) < 0.65
    assert 0.01 <= np.mean(np.array(p_values) < 0.05) <= 0.1
