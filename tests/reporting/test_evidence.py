import pytest

from pipeline.metrics.significance import MIN_IMAGES
from pipeline.reporting.evidence import has_enough_photos, uses_image


@pytest.mark.parametrize(
    ("interval", "shuffled", "expected"),
    [
        ((50, 70), 10, True),
        ((50, 70), 24.9, True),
        ((50, 70), 25, None),  # other photos could give another answer
        ((50, 70), 34.9, None),
        ((50, 70), 35, False),
        ((50, 70), None, None),
        ((0, 0), 0, None),  # there is nothing to lose
    ],
)
def test_a_model_uses_the_image_if_the_whole_interval_says_so(
    interval: tuple[float, float], shuffled: float | None, expected: bool | None
) -> None:
    assert uses_image(interval, shuffled, MIN_IMAGES) is expected
    assert uses_image(interval, shuffled, MIN_IMAGES - 1) is None


def test_there_is_one_smallest_number_of_photos() -> None:
    assert has_enough_photos(MIN_IMAGES)
    assert not has_enough_photos(MIN_IMAGES - 1)
