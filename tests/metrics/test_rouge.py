import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.metrics.rouge import rouge_l

CAPTION = st.lists(st.sampled_from("abc"), max_size=7)
PHOTO = st.tuples(CAPTION, st.lists(CAPTION, min_size=1, max_size=3))


def lcs_length(first: list[str], second: list[str]) -> int:
    """Return the length of the longest common subsequence, by its definition."""
    if not first or not second:
        return 0
    if first[-1] == second[-1]:
        return 1 + lcs_length(first[:-1], second[:-1])
    return max(lcs_length(first[:-1], second), lcs_length(first, second[:-1]))


def paper_rouge_l(candidate: list[str], references: list[list[str]]) -> float:
    # To coco-caption, a caption without tokens is one empty token.
    candidate = candidate or [""]
    references = [reference or [""] for reference in references]
    lcs = [(lcs_length(candidate, reference), len(reference)) for reference in references]
    precision = max(common / len(candidate) for common, _ in lcs)
    recall = max(common / length for common, length in lcs)
    if not precision:
        return 0.0
    return 100 * (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)


@given(st.lists(PHOTO, min_size=1, max_size=4))
def test_scores_equal_those_of_the_formula(corpus: list[tuple[list[str], list[list[str]]]]) -> None:
    scores = rouge_l([candidate for candidate, _ in corpus], [group for _, group in corpus])
    assert scores.tolist() == pytest.approx([paper_rouge_l(*photo) for photo in corpus])


def test_an_empty_caption_matches_an_empty_reference_only() -> None:
    assert rouge_l([[], [], ["a"]], [[[], ["a"]], [["a"]], [[]]]).tolist() == [100, 0, 0]


def test_precision_and_recall_may_come_from_different_references() -> None:
    (score,) = rouge_l([["a", "b", "c"]], [[["a"], ["x", "a", "b", "c", "y", "z"]]])
    assert score == pytest.approx(100)


def test_word_order_matters_but_gaps_do_not() -> None:
    in_order, reversed_order = rouge_l([["a", "b"]] * 2, [[["a", "x", "b"]], [["b", "x", "a"]]])
    assert in_order > reversed_order > 0


def test_scores_do_not_depend_on_the_batch_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(1)

    def draw_caption(max_words: int) -> list[str]:
        return [str(word) for word in random.choice(list("abcdef"), random.integers(max_words + 1))]

    candidates = [draw_caption(20) for _ in range(30)]
    references = [[draw_caption(max_words) for max_words in (5, 20, 300)] for _ in range(30)]
    scores = rouge_l(candidates, references)
    monkeypatch.setattr("pipeline.metrics.rouge._MAX_CELLS", 64)
    assert rouge_l(candidates, references).tolist() == scores.tolist()
    one_by_one = [rouge_l([c], [g]).item() for c, g in zip(candidates, references, strict=True)]
    assert one_by_one == scores.tolist()
