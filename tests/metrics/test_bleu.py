import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate import bleu_score

from pipeline.metrics.ngrams import Tokens
from pipeline.metrics.scorer import METRICS, Scorer


def corpus_bleu(
    candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]
) -> list[float]:
    corpus = Scorer(references).score(candidates).corpus
    return [corpus[name] for name in METRICS if name.startswith("BLEU")]


def caption_bleu(candidate: str, *references: str) -> list[float]:
    return corpus_bleu([candidate.split()], [[reference.split() for reference in references]])


TOKEN = st.sampled_from("abc")
# NLTK counts one n-gram for a candidate too short to have any; coco-caption counts none.
CANDIDATE = st.lists(TOKEN, min_size=4, max_size=9)
REFERENCES = st.lists(st.lists(TOKEN, min_size=1, max_size=9), min_size=1, max_size=3)


@settings(deadline=None)
@given(st.lists(st.tuples(CANDIDATE, REFERENCES), min_size=1, max_size=5))
def test_scores_equal_those_of_nltk(corpus: list[tuple[list[str], list[list[str]]]]) -> None:
    candidates = [candidate for candidate, _ in corpus]
    references = [group for _, group in corpus]
    scores = corpus_bleu(candidates, references)
    for order, score in enumerate(scores, 1):
        if score == 0:  # NLTK warns and returns a tiny number if nothing matches
            break
        expected = bleu_score.corpus_bleu(references, candidates, weights=(1 / order,) * order)
        assert score == pytest.approx(100 * expected)


def test_a_caption_equal_to_a_reference_scores_100() -> None:
    assert caption_bleu("a b c d e", "x y", "a b c d e") == pytest.approx([100] * 4)


def test_matches_are_clipped_by_the_highest_count_in_a_reference() -> None:
    scores = caption_bleu(
        "the the the the the the the", "the cat is on the mat", "a cat on the mat is it"
    )
    assert scores == pytest.approx([100 * 2 / 7, 0, 0, 0])


def test_clipping_does_not_add_up_the_counts_of_references() -> None:
    assert caption_bleu("a a a a", "a b c d", "a x y z")[0] == pytest.approx(100 / 4)


def test_the_brevity_penalty_uses_the_closest_reference_length() -> None:
    brevity_penalty = math.exp(1 - 6 / 4)
    score = caption_bleu("a b c d", "a b c d e f g h i", "a b c d e f")[0]
    assert score == pytest.approx(100 * brevity_penalty)


def test_of_two_equally_close_lengths_the_shorter_one_counts() -> None:
    assert caption_bleu("a b c d", "a b c d e", "a b c")[0] == pytest.approx(100)
    assert caption_bleu("a b c d", "a b c d e")[0] == pytest.approx(100 * math.exp(1 - 5 / 4))


def test_a_caption_gains_nothing_by_being_long() -> None:
    assert caption_bleu("a b c d e f", "a b c d") == pytest.approx(
        [
            100 * 4 / 6,
            100 * math.sqrt(4 / 6 * 3 / 5),
            100 * (4 / 6 * 3 / 5 * 2 / 4) ** (1 / 3),
            100 * (4 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** (1 / 4),
        ]
    )


def test_an_order_without_a_match_makes_this_and_higher_orders_zero() -> None:
    scores = caption_bleu("a b c x d e f", "a b c y d e f")
    assert scores[2] > 0
    assert scores[3] == 0.0
    assert caption_bleu("a b", "c d") == [0.0] * 4


def test_an_empty_caption_scores_0_and_shortens_the_corpus() -> None:
    assert corpus_bleu([[]], [[["a"]]]) == [0.0] * 4
    assert corpus_bleu([[]], [[[]]]) == [0.0] * 4
    # The empty caption counts in the brevity penalty of the corpus.
    assert corpus_bleu([["a", "b"], []], [[["a", "b"]], [["c", "d"]]])[:2] == pytest.approx(
        [100 * math.exp(1 - 4 / 2)] * 2
    )


def test_the_score_of_a_corpus_is_not_the_mean_over_its_captions() -> None:
    candidates = [list("abcde"), list("axyz")]
    references = [[list("abcde")], [list("abcd")]]
    corpus = corpus_bleu(candidates, references)
    captions = [corpus_bleu([c], [r]) for c, r in zip(candidates, references, strict=True)]
    assert corpus[0] == pytest.approx(100 * 6 / 9)
    assert (captions[0][0] + captions[1][0]) / 2 == pytest.approx(62.5)
    assert corpus[3] > 0
    assert captions[1][3] == 0
