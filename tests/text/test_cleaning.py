import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.datasets.annotations import Annotation, Annotations, Summary
from pipeline.datasets.formats import read_annotations
from pipeline.errors import InputError
from pipeline.text.cleaning import STYLES, clean_caption, clean_captions

SHARED = Path(__file__).parents[2].parent / "shared" / "flickr8k"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the 900 photos of ../shared are not there"
)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("A man in a T-shirt , 2 dogs .", "a man in a t-shirt 2 dogs"),
        ("The dog's toy; dogs' 'toys'", "the dog's toy dogs toys"),
        ("It\u2019s a \u2018so-called\u2019 well\u2010worn toy", "it's a so-called well-worn toy"),
        ("dog\u2014cat dog\u2013cat dog--cat - x", "dog cat dog cat dog cat x"),
        ("a wind\u00adsurfer", "a windsurfer"),
        ("<start> a dog <end>", "start a dog end"),
        ("Cafe\u0301 NAÏVE Straße", "café naïve straße"),
        ("Ein Dackel läuft über die Wiese.", "ein dackel läuft über die wiese"),
        ("Собака бежит", "собака бежит"),
        ("कुत्ता दौड़ता है", unicodedata.normalize("NFC", "कुत्ता दौड़ता है")),
        ("一只狗。", "一只狗"),
        ("\u0301 😀 #$% ...", ""),
        ("", ""),
    ],
)
def test_the_default_style_gives(raw: str, text: str) -> None:
    assert clean_caption(raw, "default") == text


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("A child in a pink dress .", "child in pink dress"),
        ("A well-worn dog's toy , 2 cats", "wellworn dogs toy cats"),
        ("<start> a dog <end>", "start dog end"),
        ("3rd base", "base"),
        ("A", ""),
    ],
)
def test_the_notebook_style_gives(raw: str, text: str) -> None:
    assert clean_caption(raw, "notebook") == text


@given(st.text())
def test_clean_text_is_lower_case_words_without_special_tokens(raw: str) -> None:
    for style in STYLES:
        text = clean_caption(raw, style)
        assert text == " ".join(text.split()) == text.lower()
        assert not set(text) & set('<>_.,!?"\n\t')


@given(st.text())
def test_the_default_style_is_idempotent_and_normalised(raw: str) -> None:
    text = clean_caption(raw, "default")
    assert clean_caption(text, "default") == text
    assert unicodedata.is_normalized("NFC", text)
    assert text == clean_caption(unicodedata.normalize("NFD", raw), "default")


@given(st.lists(st.sampled_from(["a", "Dog", "dog's", "T-shirt", "2", "é", ",", "."])))
def test_a_caption_is_cleaned_word_by_word(words: list[str]) -> None:
    one_by_one = (clean_caption(word, "default") for word in words)
    assert clean_caption(" ".join(words), "default") == " ".join(filter(None, one_by_one))


def test_an_unknown_style_is_an_input_error() -> None:
    with pytest.raises(InputError, match=r"clean\.style is 'loud'"):
        clean_caption("x", "loud")


def make_annotations(*captions: tuple[str, str, str]) -> Annotations:
    summary = Summary(captions_read=len(captions), photos_there=3)
    positions: dict[str, int] = {}
    rows = []
    for image_id, raw, split in captions:
        positions[image_id] = positions.get(image_id, -1) + 1
        rows.append(Annotation(image_id, positions[image_id], raw, split))
    summary.finalize((row.image_id, row.split) for row in rows)
    return Annotations(rows, summary)


def test_captions_without_words_are_dropped_and_counted() -> None:
    annotations = make_annotations(
        ("a.jpg", "...", "train"), ("a.jpg", "A dog .", "train"), ("b.jpg", "!", "dev")
    )
    frame, summary = clean_captions(annotations, "default")
    assert list(frame.itertuples(index=False, name=None)) == [
        ("a.jpg", "train", 0, "A dog .", "a dog", 2)
    ]
    assert summary.dropped == {"nothing_left_by_cleaning": 2}
    assert summary.captions_kept == 1
    assert summary.photos_kept == 1
    assert summary.photos_without_captions == 2
    assert (summary.distinct_words, summary.longest_caption_words) == (2, 2)
    assert annotations.summary.captions_kept == 3
    assert annotations.summary.dropped == {}


def test_a_style_that_leaves_no_training_captions_is_an_input_error() -> None:
    with pytest.raises(
        InputError, match=r"params\.yaml: clean\.style notebook leaves no captions for training"
    ):
        clean_captions(
            make_annotations(("a.jpg", "A", "train"), ("b.jpg", "dog", "dev")), "notebook"
        )


@needs_shared
def test_the_notebook_style_gives_the_notebooks_words() -> None:
    lines = (SHARED / "Flickr8k.token.txt").read_text(encoding="utf-8").splitlines()
    captions = [clean_caption(line.split("\t")[1], "notebook").split() for line in lines]
    assert len(captions) == 39_815
    assert len({word for words in captions for word in words}) == 8696
    assert max(map(len, captions)) == 32


@needs_shared
def test_the_notebook_style_gives_the_notebooks_vocabulary_size() -> None:
    annotations = read_annotations("flickr8k", SHARED, split_seed=1, dev_share=0.1, test_share=0.1)
    frame, _ = clean_captions(annotations, "notebook")
    words = {word for text in frame[frame["split"] == "train"]["text"] for word in text.split()}
    # Keras' Tokenizer removes < and >, so the notebook's special tokens become the words start
    # and end, one of which the captions contain anyway; id 0 is not a word.
    assert len(words) == 2687
    assert len(words | {"start", "end"}) + 1 == 2689
