"""Cleaning: captions as people write them become words."""

import string
import unicodedata
from copy import deepcopy

import pandas as pd
import regex  # type: ignore[import-untyped]

from pipeline.datasets.annotations import Annotations, Summary
from pipeline.errors import InputError

STYLES = ("default", "notebook")

# A word starts with a letter or a digit; marks belong to the letter before them.
_WORD = regex.compile(r"[\p{L}\p{N}][\p{L}\p{M}\p{N}]*(?:['-][\p{L}\p{N}][\p{L}\p{M}\p{N}]*)*")
# Dashes are not among them: they part words, where hyphens join them.
_TYPOGRAPHY = str.maketrans(
    dict.fromkeys("‘’‛′`´ʼ＇", "'")  # noqa: RUF001 - the very characters to replace
    | dict.fromkeys("‐‑﹣－", "-")  # noqa: RUF001
    | {"\u00ad": None}  # the soft hyphen only says where a line may break
)
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def clean(text: str, style: str) -> str:
    """Return a caption's words, joined by single spaces; "" if none is left.

    Style "default" lower-cases NFC-normalised text in any script and keeps letters with
    their marks, digits, and apostrophes and hyphens inside words. It is idempotent.

    Style "notebook" reproduces abel-valle/dl-image-description-gen: words at white space,
    lower case, ASCII punctuation deleted (dashes too, so that they join words), then words
    of one letter and words with anything but letters dropped.

    Raises:
        InputError: no such style.
    """
    if style == "default":
        normal = unicodedata.normalize("NFC", text).translate(_TYPOGRAPHY).lower()
        return " ".join(_WORD.findall(unicodedata.normalize("NFC", normal)))
    if style == "notebook":
        words = [word.lower().translate(_PUNCTUATION) for word in text.split()]
        return " ".join(word for word in words if len(word) > 1 and word.isalpha())
    raise InputError(f"params.yaml: clean.style is {style!r}: set it to one of {', '.join(STYLES)}")


def clean_captions(annotations: Annotations, style: str) -> tuple[pd.DataFrame, Summary]:
    """Clean every caption and drop those of which nothing is left.

    Returns:
        The caption table's columns (see `pipeline.datasets.table`), caption_index counted
        anew from 0 among a photo's remaining captions, and the completed summary; the one
        in `annotations` stays as it is.

    Raises:
        InputError: no such style, or nothing is left for training.
    """
    summary = deepcopy(annotations.summary)
    rows: list[tuple[str, str, int, str, str, int]] = []
    kept_by_photo: dict[str, int] = {}
    for row in annotations.rows:
        text = clean(row.raw, style)
        if not text:
            summary.drop("nothing_left_by_cleaning", row.image_id, row.raw)
            continue
        index = kept_by_photo.get(row.image_id, 0)
        kept_by_photo[row.image_id] = index + 1
        rows.append((row.image_id, row.split, index, row.raw, text, len(text.split())))
    columns = ["image_id", "split", "caption_index", "raw", "text", "n_words"]
    frame = pd.DataFrame(rows, columns=columns)
    summary.finalize(zip(frame["image_id"], frame["split"], strict=True))
    problem = summary.why_untrainable()
    if problem is not None:
        raise InputError(f"clean.style: {style} leaves {problem}: set another style in params.yaml")
    summary.distinct_words = len({word for text in frame["text"] for word in text.split()})
    summary.longest_caption_words = int(frame["n_words"].max())
    return frame, summary
