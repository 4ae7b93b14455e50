from pipeline.metrics.tokenizer import tokenize
from pipeline.reporting.nearest_captions import NearestCaption, find_nearest


def nearest(candidates: list[str], training: list[str]) -> list[NearestCaption]:
    return find_nearest(list(map(tokenize, candidates)), list(map(tokenize, training)), training)


def test_the_nearest_caption_shares_the_most_words_and_pairs_of_words() -> None:
    training = ["A dog runs on grass .", "A cat sits .", "grass on runs dog a"]
    (dog, cat) = nearest(["a dog runs on sand", "a cat sits down"], training)
    assert dog == NearestCaption("A dog runs on grass .", is_copy=False)
    assert cat.caption == "A cat sits ."


def test_a_copy_is_one_whatever_its_case_and_punctuation() -> None:
    (copy, other) = nearest(["a cat sits", "a cat a cat"], ["A Cat sits !", "a cat"])
    assert copy == NearestCaption("A Cat sits !", is_copy=True)
    assert other == NearestCaption("a cat", is_copy=False)  # repeated words count once each


def test_of_equally_near_captions_it_is_the_first_in_the_alphabet() -> None:
    (caption,) = nearest(["a dog"], ["a cow", "a cat", "a cow"])
    assert caption.caption == "a cat"


def test_nothing_is_nearest_to_a_caption_that_shares_no_word() -> None:
    assert nearest(["xyz", ""], ["a dog"]) == [NearestCaption("", is_copy=False)] * 2
    assert nearest(["a"], []) == [NearestCaption("", is_copy=False)]
