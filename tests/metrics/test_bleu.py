import math
from collections import Counter
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


# coco-caption gives an order without a match the precision 1e-15 / n-grams instead of 0; BLEU-4
# takes its fourth root, and is above that only if captions of three words have no n-gram.
NO_MATCH = 0.05


def coco_bleu(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> list[float]:
    """Compute BLEU-1 to BLEU-4 from coco-caption's formula, caption by caption."""
    length = reference_length = 0
    matches, totals = [0.0] * 4, [0.0] * 4
    for candidate, group in zip(candidates, references, strict=True):
        length += len(candidate)
        reference_length += min((abs(len(r) - len(candidate)), len(r)) for r in group)[1]
        for order in range(1, 5):
            counts = count_ngrams(candidate, order)
            totals[order - 1] += counts.total()
            most: Counter[Tokens] = Counter()
            for reference in group:
                most |= count_ngrams(reference, order)
            matches[order - 1] += (counts & most).total()
    product, result = 1.0, []
    ratio = (length + 1e-15) / (reference_length + 1e-9)
    for order in range(1, 5):
        product *= (matches[order - 1] + 1e-15) / (totals[order - 1] + 1e-9)
        penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
        result.append(100 * product ** (1 / order) * penalty)
    return result


def count_ngrams(tokens: Tokens, order: int) -> "Counter[Tokens]":
    return Counter(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1))


ANY_CAPTION = st.lists(st.sampled_from("abc"), max_size=6)
ANY_PHOTO = st.tuples(ANY_CAPTION, st.lists(ANY_CAPTION, min_size=1, max_size=3))


@settings(deadline=None)
@given(st.lists(ANY_PHOTO, min_size=1, max_size=4))
def test_scores_equal_those_of_coco_caption_whatever_matches(
    corpus: list[tuple[list[str], list[list[str]]]],
) -> None:
    candidates, references = [c for c, _ in corpus], [group for _, group in corpus]
    expected = coco_bleu(candidates, references)
    assert corpus_bleu(candidates, references) == pytest.approx(expected, rel=1e-9, abs=1e-300)


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
        if score < NO_MATCH:  # NLTK smooths in another way
            break
        expected = bleu_score.corpus_bleu(references, candidates, weights=(1 / order,) * order)
        assert score == pytest.approx(100 * expected)


def test_a_caption_equal_to_a_reference_scores_100() -> None:
    assert caption_bleu("a b c d e", "x y", "a b c d e") == pytest.approx([100] * 4)


def test_matches_are_clipped_by_the_highest_count_in_a_reference() -> None:
    scores = caption_bleu(
        "the the the the the the the", "the cat is on the mat", "a cat on the mat is it"
    )
    assert scores == pytest.approx([100 * 2 / 7, 0, 0, 0], abs=NO_MATCH)
    assert scores[1:] != [0, 0, 0]


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


def test_an_order_without_a_match_makes_this_and_higher_orders_nearly_zero() -> None:
    scores = caption_bleu("a b c x d e f", "a b c y d e f")
    assert scores[2] > 20
    # The fourth root of the smoothed precisions' product.
    precisions = 6 / 7 * 4 / 6 * 2 / 5 * 1e-15 / 4
    assert scores[3] == pytest.approx(100 * precisions**0.25, rel=1e-6)
    assert scores[3] < NO_MATCH
    assert max(caption_bleu("a b", "c d")[:2]) < NO_MATCH


def test_an_order_without_any_ngram_is_smoothed_less() -> None:
    # All of three words match, but there are no four: 1e-15 / 1e-9 is their precision.
    assert caption_bleu("a b c", "a b c")[3] == pytest.approx(100 * 1e-6**0.25, rel=1e-6)


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
    assert corpus[3] > NO_MATCH
    assert captions[1][3] < NO_MATCH
