import math
from collections import Counter

import numpy as np
import pytest

from pipeline.captioner.consensus import by_consensus, consensus_search
from pipeline.captioner.search import Hypothesis, search
from tests.captioner_fixtures import make_decided_decoder, vectors


def hypothesis(ids: list[int], score: float, *, finished: bool = True) -> Hypothesis:
    """Return one of that mean log-probability."""
    return Hypothesis(tuple(ids), score * (len(ids) + finished), finished)


LONE = hypothesis([20, 21, 22, 23, 24], -0.50)
LIKE = [
    hypothesis([4, 5, 6, 7, 8], -0.55),
    hypothesis([4, 5, 6, 7, 9], -0.56),
    hypothesis([3, 4, 5, 6, 7], -0.57),
]


def test_a_lone_caption_loses_though_it_is_the_likeliest() -> None:
    found = by_consensus([LONE, *LIKE])
    # Of the others the first shares most n-grams with the two beside it.
    assert found[0] == LIKE[0]
    assert found[-1] == LONE
    assert Counter(found) == Counter([LONE, *LIKE])


def test_likelihood_weighs_so_that_unlikely_captions_do_not_outvote() -> None:
    unlikely = [hypothesis(list(h.ids), h.score - 3) for h in LIKE]
    assert by_consensus([LONE, *unlikely])[0] == LONE


def test_equal_support_is_decided_by_likelihood() -> None:
    one, other = hypothesis([4, 5, 6, 7], -0.6), hypothesis([8, 9, 10, 11], -0.5)
    assert by_consensus([one, other]) == [other, one]


def test_what_was_cut_off_stays_behind_what_ended() -> None:
    cut_off = hypothesis([4, 5, 6, 7, 8, 9], -0.1, finished=False)
    assert by_consensus([cut_off, *LIKE, LONE])[-1] == cut_off
    assert by_consensus([cut_off, LONE]) == [LONE, cut_off]


@pytest.mark.parametrize(
    "alone", [LONE, hypothesis([], -2.0), hypothesis([4], -1.0, finished=False)]
)
def test_one_alone_comes_back(alone: Hypothesis) -> None:
    assert by_consensus([alone]) == [alone]


def test_scores_far_apart_are_no_overflow() -> None:
    apart = [hypothesis([4, 5], -1e4), hypothesis([4, 6], -1.0)]
    assert by_consensus(apart) == apart[::-1]


def test_the_search_has_the_hypotheses_of_the_beam_in_another_order() -> None:
    decoder = make_decided_decoder()
    asked = decoder, vectors(), 8, 5
    beams = search(*asked, repeat_trigrams=False)
    found = consensus_search(*asked, repeat_trigrams=False)
    assert [Counter(photo) for photo in found] == [Counter(beam) for beam in beams]
    assert [photo[0] for photo in found] == [by_consensus(beam)[0] for beam in beams]
    assert any(photo[0] != beam[0] for photo, beam in zip(found, beams, strict=True))


def test_the_best_gains_most_on_average() -> None:
    """Check the order against the gain computed pair by pair."""
    hypotheses = [LONE, *LIKE]
    weights = [math.exp(5 * h.score) for h in hypotheses]

    def cosine(one: Hypothesis, other: Hypothesis, order: int) -> float:
        grams = [
            {h.ids[i : i + order] for i in range(len(h.ids) - order + 1)} for h in (one, other)
        ]
        # No n-gram is twice in a caption, and all are of one length.
        return len(grams[0] & grams[1]) / len(grams[0])

    gains = [
        sum(
            weight * np.mean([cosine(h, other, order) for order in (1, 2, 3, 4)])
            for weight, other in zip(weights, hypotheses, strict=True)
        )
        for h in hypotheses
    ]
    order = sorted(range(4), key=lambda i: -gains[i])
    assert by_consensus(hypotheses) == [hypotheses[i] for i in order]
