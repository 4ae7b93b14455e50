"""Tables: labels and formatted values that the report, its charts and the model card share."""

from pipeline.metrics.significance import MIN_IMAGES
from pipeline.reporting.evaluation import Evaluation, SearchMetrics


def search_label(name: str) -> str:
    """Return a search's name for readers: "beam 3"."""
    return name.replace("_", " ")


def meteor_text(search: SearchMetrics) -> str:
    """Return METEOR with one digit, or "n/a"."""
    return "n/a" if search.meteor is None else f"{search.meteor:.1f}"


def caption_statistics(search: SearchMetrics) -> dict[str, str]:
    """Return statistics of a search's captions, label to value."""
    return {
        "distinct captions": f"{search.distinct:.1f} %",
        "vocabulary used": f"{search.words_used:.1f} %",
        "copied from the training captions": f"{search.copied:.1f} %",
        "cut off at the word limit": f"{search.unfinished:.1f} %",
        "words per caption": f"{search.mean_length:.1f}",
    }


def few_photos_text(evaluation: Evaluation) -> str:
    """Return why nothing is said about the model; empty if there are enough photos."""
    if evaluation.has_enough_photos:
        return ""
    n_photos = len(evaluation.image_ids)
    return (
        f"{n_photos} test photo{'s' * (n_photos != 1)} cannot show how good the model is: with "
        f"fewer than {MIN_IMAGES}, other photos could give quite other scores. Score more photos "
        "(clean.test_share in params.yaml, or the data set's list of test photos)."
    )


def image_use_text(evaluation: Evaluation) -> str:
    """Return whether the model uses the image, as a sentence; empty with too few photos."""
    shuffled = evaluation.shuffled_features
    if shuffled is None or not evaluation.has_enough_photos:
        return ""
    score = evaluation.primary.corpus["CIDEr-D"]
    if evaluation.uses_image is None:
        if score <= 0:
            return (
                "Whether the model uses the image cannot be told: its captions have nothing in "
                "common with the references (CIDEr-D 0)."
            )
        return (
            "Whether the model uses the image cannot be told from these photos: with shuffled "
            f"features its CIDEr-D is {shuffled['CIDEr-D']:.1f} instead of {score:.1f}."
        )
    if evaluation.uses_image:
        return (
            f"The model uses the image: with shuffled features, its CIDEr-D falls from "
            f"{score:.1f} to {shuffled['CIDEr-D']:.1f}."
        )
    return (
        "The model hardly uses the image. When every photo gets another photo's features, the "
        f"captions still score CIDEr-D {shuffled['CIDEr-D']:.1f} of {score:.1f}. They describe "
        "photos like these, not the photo itself."
    )
