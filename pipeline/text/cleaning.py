"""Cleaning: turn captions as people write them into words."""

import string
import unicodedata
from copy import deepcopy

import pandas as pd
import regex  # type: ignore[import-untyped]

from pipeline.datasets.annotations import Annotations, Summary
from pipeline.errors import InputError
from pipeline.progress import track

STYLES = ("default", "notebook")

# A word starts with a letter or a digit; combining marks belong to the letter before them.
_WORD = regex.compile(r"[\p{L}\p{N}][\p{L}\p{M}\p{N}]*(?:['-][\p{L}\p{N}][\p{L}\p{M}\p{N}]*)*")
# Dashes are not included: they separate words, while hyphens join them.
_TYPOGRAPHY = str.maketrans(
    dict.fromkeys("‘’‛′`´ʼ＇", "'")  # noqa: RUF001  (the characters to replace)
    | dict.fromkeys("‐‑﹣－", "-")  # noqa: RUF001  (the characters to replace)
    | {"\u00ad": None}  # the soft hyphen only marks where a line may break
)
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def clean_caption(text: str, style: str) -> str:
    """Return a caption's words, joined by single spaces; "" if no word is left.

    Style "default" lower-cases NFC-normalised text in any script and keeps letters with
    their marks, digits, and apostrophes and hyphens inside words. It is idempotent.

    Style "notebook" reproduces abel-valle/dl-image-description-gen: split at white space,
    lower-case, delete ASCII punctuation (including dashes, which joins words), then drop
    words of one letter and words that contain anything but letters.

    Raises:
        InputError: the style does not exist.
    """
    if style == "default":
        normal = unicodedata.normalize("NFC", text).translate(_TYPOGRAPHY).lower()
        return " ".join(_WORD.findall(unicodedata.normalize("NFC", normal)))
    if style == "notebook":
        words = [word.lower().translate(_PUNCTUATION) for word in text.split()]
        return " ".join(word for word in words if len(word) > 1 and word.isalpha())
    raise InputError(f"params.yaml: clean.style is {style!r}: set it to one of {', '.join(STYLES)}")


def clean_captions(annotations: Annotations, style: str) -> tuple[pd.DataFrame, Summary]:
    """Clean every caption and drop those without a word.

    Returns:
        The caption table's columns (see `caption_table.CaptionTable`), with caption_index
        counted again from 0 among a photo's remaining captions; and the completed summary.
        The summary of `annotations` is not changed.

    Raises:
        InputError: the style does not exist, or no captions remain for training.
    """
    summary = deepcopy(annotations.summary)
    rows: list[tuple[str, str, int, str, str, int]] = []
    captions_by_photo: dict[str, int] = {}
    for annotation in track(annotations.rows, "clean", len(annotations.rows), "captions"):
        image_id, raw = annotation.image_id, annotation.raw
        text = clean_caption(raw, style)
        if not text:
            summary.drop("nothing_left_by_cleaning", image_id, raw)
            continue
        index = captions_by_photo.get(image_id, 0)
        captions_by_photo[image_id] = index + 1
        rows.append((image_id, annotation.split, index, raw, text, len(text.split())))
    columns = ["image_id", "split", "caption_index", "raw", "text", "n_words"]
    frame = pd.DataFrame(rows, columns=columns)
    summary.finalize(zip(frame["image_id"], frame["split"], strict=True))
    captionless = {
        annotation.image_id for annotation in annotations.rows
    } - captions_by_photo.keys()
    if captionless:
        without_captions = summary.photo_lists.get("without_captions", [])
        summary.photo_lists["without_captions"] = sorted({*without_captions, *captionless})
    problem = summary.why_untrainable()
    if problem is not None:
        raise InputError(
            f"params.yaml: clean.style {style} leaves {problem}: set it to another style"
        )
    summary.distinct_words = len({word for text in frame["text"] for word in text.split()})
    summary.longest_caption_words = int(frame["n_words"].max())
    return frame, summary
