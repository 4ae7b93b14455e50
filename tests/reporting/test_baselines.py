import pytest

from pipeline.metrics.scorer import METRICS, Scorer
from pipeline.reporting.baselines import (
    HUMAN_AGREEMENT,
    MODEL_LEAVE_ONE_OUT,
    best_constant,
    leave_one_out,
    random_captions,
    shuffled_features,
)

GROUPS = [
    [["a", "dog", "runs", "on", "grass"], ["a", "dog", "on", "green", "grass"]],
    [["a", "dog", "runs", "on", "sand"], ["a", "brown", "dog", "runs", "on", "sand"]],
    [["a", "dog", "swims", "in", "water"], ["a", "wet", "dog", "in", "water"]],
    [["two", "cats", "sleep", "on", "beds"], ["cats", "on", "a", "bed"]],
]
SCORER = Scorer(GROUPS)


def test_the_constant_caption_is_the_training_caption_that_fits_most_photos() -> None:
    training = [["a", "cat"], ["a", "dog", "runs", "on", "sand"], ["it", "is", "a", "red", "bus"]]
    caption, corpus = best_constant(training, SCORER)
    assert caption == "a dog runs on sand"
    assert corpus == SCORER.score([caption.split()] * 4).corpus


def test_there_is_a_constant_caption_even_without_suitable_training_captions() -> None:
    assert best_constant([["dog"]], SCORER)[0] == ""
    assert best_constant([], SCORER)[1] == dict.fromkeys(METRICS, 0.0)


def test_random_captions_score_lower_than_the_photos_own_captions() -> None:
    own = [group[0] for group in GROUPS]
    corpus = random_captions(own, SCORER)
    assert corpus == random_captions(own, SCORER)
    assert corpus["CIDEr-D"] < SCORER.score(own).corpus["CIDEr-D"]


def test_human_agreement_scores_each_reference_against_the_others() -> None:
    groups = [*GROUPS, [["only", "one"]]]
    corpora = leave_one_out(groups, [["a"]] * 5)
    turns = [
        Scorer([[g[1]] for g in GROUPS]).score([g[0] for g in GROUPS]).corpus,
        Scorer([[g[0]] for g in GROUPS]).score([g[1] for g in GROUPS]).corpus,
    ]
    expected = {n: (turns[0][n] + turns[1][n]) / 2 for n in METRICS}
    assert corpora[HUMAN_AGREEMENT] == pytest.approx(expected)
    assert leave_one_out([[["only", "one"]]], [["a"]]) == {}


def test_the_model_is_scored_beside_it_against_as_many_references() -> None:
    candidates = [["a", "dog", "runs"], ["a", "dog", "on", "sand"], ["water"], ["two", "cats"]]
    corpora = leave_one_out(GROUPS, candidates)
    turns = [Scorer([[g[1 - turn]] for g in GROUPS]).score(candidates).corpus for turn in (0, 1)]
    expected = {n: (turns[0][n] + turns[1][n]) / 2 for n in METRICS}
    assert corpora[MODEL_LEAVE_ONE_OUT] == pytest.approx(expected)
    # Scores rise with the number of references.
    assert expected["BLEU-1"] < SCORER.score(candidates).corpus["BLEU-1"]
    # A caption that is a reference agrees as much as that reference does.
    own = [group[0] for group in GROUPS]
    assert (
        leave_one_out([[g[0], g[0]] for g in GROUPS], own)[MODEL_LEAVE_ONE_OUT]
        == (leave_one_out([[g[0], g[0]] for g in GROUPS], own)[HUMAN_AGREEMENT])
    )


def test_shuffled_features_score_captions_of_other_photos() -> None:
    own = [group[0] for group in GROUPS]
    corpus = shuffled_features(own, SCORER)
    assert corpus is not None
    assert corpus["CIDEr-D"] < 0.5 * SCORER.score(own).corpus["CIDEr-D"]
    # The same caption for every photo loses nothing.
    same = [["a", "dog", "runs"]] * 4
    assert shuffled_features(same, SCORER) == pytest.approx(SCORER.score(same).corpus)
    assert shuffled_features(own[:1], Scorer(GROUPS[:1])) is None
