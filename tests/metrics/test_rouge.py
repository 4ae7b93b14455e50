import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.metrics.rouge import rouge_l

CAPTION = st.lists(st.sampled_from("abc"), max_size=7)
PHOTO = st.tuples(CAPTION, st.lists(CAPTION, min_size=1, max_size=3))


def longest_common(ours: list[str], theirs: list[str]) -> int:
    """Return the length of the longest common subsequence, by its definition."""
    if not ours or not theirs:
        return 0
    if ours[-1] == theirs[-1]:
        return 1 + longest_common(ours[:-1], theirs[:-1])
    return max(longest_common(ours[:-1], theirs), longest_common(ours, theirs[:-1]))


def by_the_paper(candidate: list[str], group: list[list[str]]) -> float:
    found = [(longest_common(candidate, reference), len(reference)) for reference in group]
    precision = max(longest / max(len(candidate), 1) for longest, _ in found)
    recall = max(longest / max(length, 1) for longest, length in found)
    if not precision:
        return 0.0
    return 100 * (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision)


@given(st.lists(PHOTO, min_size=1, max_size=4))
def test_scores_are_those_of_the_formula(corpus: list[tuple[list[str], list[list[str]]]]) -> None:
    scores = rouge_l([candidate for candidate, _ in corpus], [group for _, group in corpus])
    assert scores.tolist() == pytest.approx([by_the_paper(*photo) for photo in corpus])


def test_precision_and_recall_may_be_of_different_references() -> None:
    (score,) = rouge_l([["a", "b", "c"]], [[["a"], ["x", "a", "b", "c", "y", "z"]]])
    assert score == pytest.approx(100)


def test_words_in_between_do_not_matter_but_order_does() -> None:
    in_order, turned = rouge_l([["a", "b"]] * 2, [[["a", "x", "b"]], [["b", "x", "a"]]])
    assert in_order > turned > 0


def test_scores_are_the_same_however_few_pairs_are_looked_at_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(1)

    def caption(longest: int) -> list[str]:
        return [str(word) for word in random.choice(list("abcdef"), random.integers(longest + 1))]

    candidates = [caption(20) for _ in range(30)]
    references = [[caption(longest) for longest in (5, 20, 300)] for _ in range(30)]
    scores = rouge_l(candidates, references)
    monkeypatch.setattr("pipeline.metrics.rouge._CELLS", 64)
    assert rouge_l(candidates, references).tolist() == scores.tolist()
    alone = [rouge_l([c], [g]).item() for c, g in zip(candidates, references, strict=True)]
    assert alone == scores.tolist()
