import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate import bleu_score

from pipeline.metrics.ngrams import Tokens
from pipeline.metrics.scorer import METRICS, Scorer


def corpus_bleu(candidates: Sequence[Tokens], groups: Sequence[Sequence[Tokens]]) -> list[float]:
    corpus = Scorer(groups).score(candidates).corpus
    return [corpus[name] for name in METRICS if name.startswith("BLEU")]


def bleu(candidate: str, *references: str) -> list[float]:
    return corpus_bleu([candidate.split()], [[reference.split() for reference in references]])


TOKEN = st.sampled_from("abc")
# NLTK counts a candidate that is too short to have an n-gram as if it had one; papers do not.
CANDIDATE = st.lists(TOKEN, min_size=4, max_size=9)
REFERENCES = st.lists(st.lists(TOKEN, min_size=1, max_size=9), min_size=1, max_size=3)


@settings(deadline=None)
@given(st.lists(st.tuples(CANDIDATE, REFERENCES), min_size=1, max_size=5))
def test_scores_are_those_of_nltk(corpus: list[tuple[list[str], list[list[str]]]]) -> None:
    candidates = [candidate for candidate, _ in corpus]
    references = [group for _, group in corpus]
    scores = corpus_bleu(candidates, references)
    for order, score in enumerate(scores, 1):
        if score == 0:  # NLTK warns and puts a tiny number for no match
            break
        theirs = bleu_score.corpus_bleu(references, candidates, weights=(1 / order,) * order)
        assert score == pytest.approx(100 * theirs)


def test_a_caption_that_is_a_reference_scores_100() -> None:
    assert bleu("a b c d e", "x y", "a b c d e") == pytest.approx([100] * 4)


def test_matches_are_clipped_by_the_reference_that_has_most() -> None:
    scores = bleu("the the the the the the the", "the cat is on the mat", "a cat on the mat is it")
    assert scores == pytest.approx([100 * 2 / 7, 0, 0, 0])


def test_clipping_takes_one_reference_and_does_not_add_them_up() -> None:
    assert bleu("a a a a", "a b c d", "a x y z")[0] == pytest.approx(100 / 4)


def test_the_brevity_penalty_compares_with_the_closest_length() -> None:
    ridge_alpha = math.exp(1 - 6 / 4)
    assert bleu("a b c d", "a b c d e f g h i", "a b c d e f")[0] == pytest.approx(
        100 * ridge_alpha
    )


def test_of_two_lengths_as_close_the_shorter_counts() -> None:
    assert bleu("a b c d", "a b c d e", "a b c")[0] == pytest.approx(100)
    assert bleu("a b c d", "a b c d e")[0] == pytest.approx(100 * math.exp(1 - 5 / 4))


def test_a_long_caption_is_not_rewarded_for_its_length() -> None:
    assert bleu("a b c d e f", "a b c d") == pytest.approx(
        [
            100 * 4 / 6,
            100 * math.sqrt(4 / 6 * 3 / 5),
            100 * (4 / 6 * 3 / 5 * 2 / 4) ** (1 / 3),
            100 * (4 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** (1 / 4),
        ]
    )


def test_an_order_without_a_match_makes_it_and_the_higher_ones_zero() -> None:
    scores = bleu("a b c x d e f", "a b c y d e f")
    assert scores[2] > 0
    assert scores[3] == 0.0
    assert bleu("a b", "c d") == [0.0] * 4


def test_empty_captions() -> None:
    assert corpus_bleu([[]], [[["a"]]]) == [0.0] * 4
    assert corpus_bleu([[]], [[[]]]) == [0.0] * 4
    # It counts for the length that the corpus lacks.
    assert corpus_bleu([["a", "b"], []], [[["a", "b"]], [["c", "d"]]])[:2] == pytest.approx(
        [100 * math.exp(1 - 4 / 2)] * 2
    )


def test_a_corpus_is_scored_as_a_whole_and_not_by_the_mean_of_its_captions() -> None:
    candidates = [list("abcde"), list("axyz")]
    references = [[list("abcde")], [list("abcd")]]
    together = corpus_bleu(candidates, references)
    alone = [corpus_bleu([c], [r]) for c, r in zip(candidates, references, strict=True)]
    assert together[0] == pytest.approx(100 * 6 / 9)
    assert (alone[0][0] + alone[1][0]) / 2 == pytest.approx(62.5)
    assert together[3] > 0
    assert alone[1][3] == 0
