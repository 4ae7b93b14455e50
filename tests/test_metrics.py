import math

import pytest

from pipeline.reporting.metrics import score
from pipeline.reporting.predictions import Prediction

NAMES = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "distinct"]


def predicted(**captions: str) -> list[Prediction]:
    return [
        Prediction(i, "greedy", caption, -1.0, finished=True) for i, caption in captions.items()
    ]


def test_a_small_case_worked_out_by_hand() -> None:
    scores = score(
        predicted(one="a dog runs", two="a cat"),
        {"one": ["A dog runs ."], "two": ["The cat sat.", "Two cats are sitting down"]},
    )
    # Of five words a, dog, runs and cat match, of three pairs two, of one triple one. Two
    # references are three words long, the candidates five words, which costs exp(1 - 6 / 5).
    brevity = math.exp(-0.2)
    assert scores == {
        "BLEU-1": round(100 * brevity * 4 / 5, 2),
        "BLEU-2": round(100 * brevity * math.sqrt(4 / 5 * 2 / 3), 2),
        "BLEU-3": round(100 * brevity * (4 / 5 * 2 / 3 * 1) ** (1 / 3), 2),
        "BLEU-4": 0.0,
        "distinct": 100.0,
    }
    assert scores["BLEU-1"] == 65.50


def test_scores_have_their_names_in_order_and_two_decimals() -> None:
    scores = score(predicted(x="a b c", y="a b d", z="a b c"), {i: ["a b c d"] for i in "xyz"})
    assert list(scores) == NAMES
    assert scores["distinct"] == 66.67
    assert all(round(value, 2) == value for value in scores.values())
    assert not all(value.is_integer() for value in scores.values())


def test_captions_that_are_references_score_100() -> None:
    captions = {"one": "a brown dog runs on grass", "two": "two cats sleep on a bed"}
    references = {
        "one": ["Grass.", "A brown dog runs on grass."],
        "two": ["Two cats sleep on a bed"],
    }
    assert score(predicted(**captions), references) == dict.fromkeys(NAMES, 100.0)


def test_references_are_raw_so_case_and_punctuation_do_not_count() -> None:
    captions = {"one": "the dog 's ball is red"}
    raw = score(predicted(**captions), {"one": ["The dog's ball, is RED!"]})
    assert raw == dict.fromkeys(NAMES, 100.0)


def test_words_that_cleaning_would_drop_are_counted_in_references() -> None:
    whole = score(predicted(one="dog on grass"), {"one": ["A dog on a 5 m patch of grass"]})
    short = score(predicted(one="dog on grass"), {"one": ["dog on grass"]})
    assert whole["BLEU-1"] == round(100 * math.exp(1 - 9 / 3), 2)
    assert short["BLEU-1"] == 100


def test_each_photo_is_scored_against_its_own_references() -> None:
    references = {"one": ["a dog"], "two": ["the cat"], "not predicted": ["a dog"]}
    right = score(predicted(one="a dog", two="the cat"), references)
    swapped = score(predicted(one="the cat", two="a dog"), references)
    assert (right["BLEU-2"], swapped["BLEU-1"]) == (100, 0)


def test_distinct_counts_different_captions_a_hundred_photos() -> None:
    references = {f"photo{i}": ["a dog"] for i in range(8)}
    same = score(predicted(**dict.fromkeys(references, "a dog")), references)
    assert same["distinct"] == 12.5
    halves = {image_id: f"a dog {i // 2}" for i, image_id in enumerate(references)}
    assert score(predicted(**halves), references)["distinct"] == 50


def test_captions_without_words_score_nothing() -> None:
    scores = score(predicted(one="", two=""), {"one": ["a dog"], "two": ["a cat"]})
    assert scores == dict.fromkeys(NAMES, 0.0) | {"distinct": 50.0}


def test_a_photo_without_references_is_our_own_mistake() -> None:
    with pytest.raises(KeyError, match="two"):
        score(predicted(one="a dog", two="a cat"), {"one": ["a dog"]})
