import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.metrics.cider import CiderD
from pipeline.metrics.ngrams import Tokens
from pipeline.metrics.references import References

TOKEN = st.sampled_from("abcd")
CAPTION = st.lists(TOKEN, max_size=8)
PHOTO = st.tuples(
    st.lists(TOKEN | st.sampled_from("xyz"), max_size=8), st.lists(CAPTION, min_size=1, max_size=3)
)


def cider_d(candidates: Sequence[Tokens], groups: Sequence[Sequence[Tokens]]) -> list[float]:
    scores: list[float] = CiderD(References(groups)).scores(candidates).tolist()
    return scores


def grams(tokens: Tokens, order: int) -> Counter[Tokens]:
    return Counter(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1))


def by_the_paper(candidates: Sequence[Tokens], groups: Sequence[Sequence[Tokens]]) -> list[float]:
    """Compute CIDEr-D gram by gram, as Vedantam et al. write it down."""
    photos = len(groups)

    def weight(gram: Tokens) -> float:
        having = sum(any(grams(r, len(gram))[gram] for r in group) for group in groups)
        return math.log(photos / max(having, 1))

    def similarity(candidate: Tokens, reference: Tokens, order: int) -> float:
        ours, theirs = (
            {gram: count * weight(gram) for gram, count in grams(tokens, order).items()}
            for tokens in (candidate, reference)
        )
        norms = math.dist(ours.values(), [0] * len(ours)) * math.dist(
            theirs.values(), [0] * len(theirs)
        )
        if not norms:
            return 0.0
        dot = sum(
            min(value, theirs.get(gram, 0)) * theirs.get(gram, 0) for gram, value in ours.items()
        )
        apart = max(len(candidate) - 1, 0) - max(len(reference) - 1, 0)
        return dot / norms * math.exp(-(apart**2) / (2 * 6**2))

    return [
        1000
        * math.fsum(similarity(candidate, r, order) for r in group for order in range(1, 5))
        / (4 * len(group))
        for candidate, group in zip(candidates, groups, strict=True)
    ]


@settings(deadline=None)
@given(st.lists(PHOTO, min_size=1, max_size=5))
def test_scores_are_those_of_the_formula(corpus: list[tuple[list[str], list[list[str]]]]) -> None:
    candidates = [candidate for candidate, _ in corpus]
    groups = [group for _, group in corpus]
    assert cider_d(candidates, groups) == pytest.approx(by_the_paper(candidates, groups), abs=1e-9)


def test_a_caption_that_is_the_reference_scores_1000() -> None:
    groups = [[list("abcde")], [list("vwxyz")]]
    assert cider_d([list("abcde"), list("abcde")], groups) == pytest.approx([1000, 0])


def test_what_every_photo_has_counts_nothing() -> None:
    groups = [[["a", "dog"]], [["a", "cat"]]]
    assert cider_d([["a"], ["a"]], groups) == [0, 0]


def test_of_a_single_photo_every_weight_is_nothing() -> None:
    assert cider_d([list("abcde")], [[list("abcde")]]) == [0]


def test_unknown_words_make_a_caption_longer_as_a_vector() -> None:
    groups = [[list("abcde")], [list("vwxyz")]]
    alone, beside = (
        cider_d([list("abcd"), list("v")], groups),
        cider_d([list("abcd?"), list("v")], groups),
    )
    assert beside[0] < alone[0]
    # Two that are each once are a shorter vector than one that is there twice.
    different, twice = (cider_d([list(c), []], groups)[0] for c in ("abc12", "abc11"))
    assert different != twice


def test_candidates_may_be_of_any_photos_in_any_number() -> None:
    groups = [[list("abcde"), list("abx")], [list("vwxyz")], [list("mnabo")]]
    scorer = CiderD(References(groups))
    one_each = scorer.scores([list("abde"), list("vw"), list("mnab")])
    photo = np.array([2, 0, 2, 1])
    candidates = [list("mnab"), list("abde"), list("mnab"), list("vw")]
    assert np.array_equal(scorer.scores(candidates, photo), one_each[photo])
    assert len(scorer.scores([], np.zeros(0, np.int64))) == 0
