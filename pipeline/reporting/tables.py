"""Tables: labels and formatted values that the report, its charts and the model card share."""

from pipeline.reporting.evaluation import SearchMetrics


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
