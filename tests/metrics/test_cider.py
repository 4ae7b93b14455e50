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


def cider_d(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> list[float]:
    scores: list[float] = CiderD(References(references)).scores(candidates).tolist()
    return scores


def ngrams(tokens: Tokens, order: int) -> Counter[Tokens]:
    return Counter(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1))


def paper_cider_d(
    candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]
) -> list[float]:
    """Compute CIDEr-D n-gram by n-gram, by the formula of Vedantam et al."""

    def idf(ngram: Tokens) -> float:
        document_frequency = sum(
            any(ngrams(r, len(ngram))[ngram] for r in group) for group in references
        )
        return math.log(len(references) / max(document_frequency, 1))

    def similarity(candidate: Tokens, reference: Tokens, order: int) -> float:
        first, second = (
            {ngram: count * idf(ngram) for ngram, count in ngrams(tokens, order).items()}
            for tokens in (candidate, reference)
        )
        norms = math.dist(first.values(), [0] * len(first)) * math.dist(
            second.values(), [0] * len(second)
        )
        if not norms:
            return 0.0
        dot = sum(
            min(value, second.get(ngram, 0)) * second.get(ngram, 0)
            for ngram, value in first.items()
        )
        length_difference = max(len(candidate) - 1, 0) - max(len(reference) - 1, 0)
        return dot / norms * math.exp(-(length_difference**2) / (2 * 6**2))

    return [
        1000
        * math.fsum(similarity(candidate, r, order) for r in group for order in range(1, 5))
        / (4 * len(group))
        for candidate, group in zip(candidates, references, strict=True)
    ]


@settings(deadline=None)
@given(st.lists(PHOTO, min_size=1, max_size=5))
def test_scores_equal_those_of_the_formula(corpus: list[tuple[list[str], list[list[str]]]]) -> None:
    candidates = [candidate for candidate, _ in corpus]
    references = [group for _, group in corpus]
    assert cider_d(candidates, references) == pytest.approx(
        paper_cider_d(candidates, references), abs=1e-9
    )


def test_a_caption_equal_to_its_reference_scores_1000() -> None:
    references = [[list("abcde")], [list("vwxyz")]]
    assert cider_d([list("abcde"), list("abcde")], references) == pytest.approx([1000, 0])


def test_words_that_all_photos_have_add_nothing() -> None:
    references = [[["a", "dog"]], [["a", "cat"]]]
    assert cider_d([["a"], ["a"]], references) == [0, 0]


def test_the_score_of_a_single_photo_is_0() -> None:
    assert cider_d([list("abcde")], [[list("abcde")]]) == [0]


def test_unseen_words_increase_the_norm_of_a_caption() -> None:
    references = [[list("abcde")], [list("vwxyz")]]
    seen, unseen = (
        cider_d([list("abcd"), list("v")], references),
        cider_d([list("abcd?"), list("v")], references),
    )
    assert unseen[0] < seen[0]
    # Two different unseen words have a smaller norm than one that is repeated.
    different, repeated = (cider_d([list(c), []], references)[0] for c in ("abc12", "abc11"))
    assert different != repeated


def test_each_photo_may_have_any_number_of_candidates() -> None:
    references = [[list("abcde"), list("abx")], [list("vwxyz")], [list("mnabo")]]
    scorer = CiderD(References(references))
    one_each = scorer.scores([list("abde"), list("vw"), list("mnab")])
    image = np.array([2, 0, 2, 1])
    candidates = [list("mnab"), list("abde"), list("mnab"), list("vw")]
    assert np.array_equal(scorer.scores(candidates, image), one_each[image])
    assert len(scorer.scores([], np.zeros(0, np.int64))) == 0
