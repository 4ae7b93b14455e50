import time

import pytest

from pipeline.datasets.annotations import Annotation, Summary
from pipeline.datasets.markup import note_markup


def noted(*captions: str) -> dict[str, int]:
    summary = Summary()
    rows = [Annotation("a.jpg", index, text, "train") for index, text in enumerate(captions)]
    note_markup(summary, rows)
    return summary.noted


@pytest.mark.parametrize(
    "caption",
    [
        "<p>A dog</p>",
        '<img src="a.jpg"> A dog',
        "A dog<br/>runs",
        "<start> a dog <end>",
        "startseq a dog endseq",
        "[CLS] a dog [SEP]",
        "a <unk> dog",
        "<s>a dog</s>",
        "<|endoftext|> a dog",
        "#0 A dog",
        r"\textbf{A dog}",
        "A $x^2$ dog",
        "A dog &amp; a cat",
        "https://example.org/a.jpg",
        '{"caption": "A dog"}',
        '["A dog"]',
    ],
)
def test_markup_in_most_captions_is_noted(caption: str) -> None:
    assert noted(caption, caption, "A cat .") == {"markup": 2}
    assert noted(caption, "A cat .") == {}


@pytest.mark.parametrize(
    "caption",
    [
        "A dog .",
        "A dog < a cat > a mouse",
        "I <3 dogs",
        "A shirt with #1fan on it",
        "It costs $5 and $6",
        "A [red] dog",
        "C:\\dogs",
        "dogs & cats",
        "",
    ],
)
def test_plain_text_is_no_markup(caption: str) -> None:
    assert noted(caption) == {}


@pytest.mark.parametrize("part", ["<a ", "<", "$ $", "$a", "\\a", "[", "&#1", " ", "#", "https:/"])
def test_a_hostile_caption_takes_no_time(part: str) -> None:
    start = time.process_time()
    noted(part * (10**6 // len(part)))
    assert time.process_time() - start < 2
