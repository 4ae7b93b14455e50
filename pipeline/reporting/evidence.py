"""What an evaluation can show: the rule for when the report says nothing about the model.

Below `MIN_IMAGES` the report, the model card and the terminal give scores without a verdict: no
interval, no best and worst photos, no over-used words, no scores by length, and no statement
about whether the model uses the image.
"""

from pipeline.metrics.significance import MIN_IMAGES, Interval

# A model that uses the image loses nearly all of its CIDEr-D when features are shuffled.
_MAX_SHUFFLED_SHARE = 0.5


def has_enough_photos(n_photos: int) -> bool:
    """Return whether scores of so many photos say something about the model."""
    return n_photos >= MIN_IMAGES


def uses_image(interval: Interval, shuffled: float | None, n_photos: int) -> bool | None:
    """Return whether a model's captions depend on their photos; None if that cannot be told.

    They do if shuffled features halve the score. The answer has to be the same at both ends of
    the score's interval, so that a few other photos would not change it.

    Args:
        interval: 95 % interval of the model's CIDEr-D.
        shuffled: its CIDEr-D with shuffled features; None for a single photo.
        n_photos: number of photos that were scored.
    """
    low, high = interval
    if shuffled is None or not has_enough_photos(n_photos) or high <= 0:
        return None
    if shuffled < _MAX_SHUFFLED_SHARE * low:
        return True
    return False if shuffled >= _MAX_SHUFFLED_SHARE * high else None
