import json
import math
import statistics
from collections.abc import Mapping, Sequence

import pytest

from pipeline.metrics.scorer import METRICS
from pipeline.reporting.evaluation import Evaluation, evaluate
from pipeline.reporting.predictions import Prediction
from pipeline.text.vocabulary import Vocabulary

REFERENCES = {
    "one.jpg": ["A dog runs .", "A brown dog runs on grass"],
    "two.jpg": ["The cat sat.", "Two cats are sitting down"],
    "three.jpg": ["A red bus", "A bus on a street"],
}
GOOD = ["a dog runs", "a cat", "a red bus"]


def predicted(search: str, captions: Sequence[str], *, finished: bool = True) -> list[Prediction]:
    return [
        Prediction(image_id, search, caption, -1.0, finished=finished)
        for image_id, caption in zip(REFERENCES, captions, strict=True)
    ]


def evaluation(
    greedy: Sequence[str],
    beam: Sequence[str] | None = None,
    by_seed: Mapping[int, Sequence[str]] | None = None,
) -> Evaluation:
    searches = {"greedy": predicted("greedy", greedy)}
    if beam is not None:
        searches["beam_3"] = predicted("beam_3", beam, finished=False)
    return evaluate(
        searches,
        primary_search=list(searches)[-1],
        references=REFERENCES,
        training=["A dog runs !", "a man sits"],
        vocabulary=Vocabulary.build(["a dog runs a red bus cat the sat"], 1, "f" * 64),
        clean_references=["a dog runs", "two cats"],
        perplexity=8.125,
        provenance={"split": "test"},
        detected={"1.jpg": ["dog"]},
        by_seed={
            seed: {"greedy": predicted("greedy", captions)}
            for seed, captions in (by_seed or {}).items()
        },
    )


def test_a_small_case_worked_out_by_hand() -> None:
    found = evaluation(GOOD).searches["greedy"]
    # Of eight words a, dog, runs, cat, a, red and bus match; of five pairs four, of two
    # triples two. The references closest in length have nine words together.
    brevity = math.exp(1 - 9 / 8)
    assert found.corpus["BLEU-1"] == pytest.approx(100 * brevity * 7 / 8)
    assert found.corpus["BLEU-2"] == pytest.approx(100 * brevity * math.sqrt(7 / 8 * 4 / 5))
    assert found.corpus["BLEU-4"] == 0


def test_what_stands_beside_a_search() -> None:
    found = evaluation(GOOD, ["a dog runs", "a dog runs", "a bus runs on a street"])
    greedy, beam = found.searches["greedy"], found.searches["beam_3"]
    assert greedy.distinct == 100
    assert beam.distinct == pytest.approx(200 / 3)
    assert greedy.copied == pytest.approx(100 / 3)  # whatever its case and punctuation
    assert beam.mean_length == 4
    assert (greedy.unfinished, beam.unfinished) == (0, 100)
    assert greedy.words_used == pytest.approx(100 * 6 / 8)
    assert found.unknown_words == pytest.approx(100 * 2 / 5)


def test_metrics_are_a_dozen_numbers_and_the_rest_in_lists() -> None:
    found = evaluation(GOOD, GOOD).as_json()
    assert json.loads(json.dumps(found)) == found
    (details,) = found.pop("details")
    flat = found
    assert list(flat) == [
        *METRICS,
        "CIDEr-D greedy",
        "CIDEr-D constant caption",
        "CIDEr-D shuffled features",
        "CIDEr-D human agreement",
        "distinct",
        "perplexity",
    ]
    assert all(value == round(value, 2) for value in flat.values())
    assert flat["perplexity"] == 8.12
    assert [row["name"] for row in details["searches"]] == ["greedy", "beam_3"]
    low, high = details["searches"][1]["intervals"]["CIDEr-D"]
    assert low <= details["searches"][1]["CIDEr-D"] <= high
    assert [row["name"] for row in details["baselines"]] == [
        "constant caption",
        "random captions",
        "shuffled features",
        "human agreement",
    ]
    assert details["provenance"] == {"split": "test"}


def test_a_model_that_says_the_same_of_every_photo_does_not_look() -> None:
    assert evaluation(GOOD).uses_image
    assert not evaluation(["a dog runs"] * 3).uses_image


def test_references_are_raw_so_case_and_punctuation_do_not_count() -> None:
    found = evaluation(["a DOG , runs", "the cat sat", "a red bus ."]).searches["greedy"]
    assert found.corpus["BLEU-2"] == pytest.approx(100)


def test_each_photo_is_scored_against_its_own_references() -> None:
    swapped = evaluation([GOOD[2], GOOD[0], GOOD[1]]).searches["greedy"]
    assert swapped.corpus["CIDEr-D"] < evaluation(GOOD).searches["greedy"].corpus["CIDEr-D"]


def test_captions_without_words_score_nothing() -> None:
    found = evaluation([""] * 3)
    assert found.searches["greedy"].corpus == dict.fromkeys(METRICS, 0.0)
    assert found.searches["greedy"].mean_length == 0
    assert not found.uses_image


def test_several_seeds_have_their_scores_mean_and_deviation() -> None:
    others = {1: GOOD, 2: ["a dog", "a cat", "a bus"], 3: ["a dog runs"] * 3}
    found = evaluation(GOOD, by_seed=others)
    alone = [evaluation(captions).searches["greedy"].corpus for captions in others.values()]
    assert [found.seeds[seed]["greedy"] for seed in others] == alone
    spread = found.over_seeds["greedy"]
    assert list(spread) == list(METRICS)
    for metric in METRICS:
        scores = [corpus[metric] for corpus in alone]
        assert spread[metric].mean == pytest.approx(statistics.mean(scores))
        assert spread[metric].deviation == pytest.approx(statistics.stdev(scores))
    assert spread["CIDEr-D"].deviation > 1

    (details,) = found.as_json()["details"]
    assert [(row["seed"], row["search"]) for row in details["seeds"]] == [
        (seed, "greedy") for seed in others
    ]
    (row,) = details["over_seeds"]
    assert row["search"] == "greedy"
    assert row["CIDEr-D"] == {
        "mean": round(spread["CIDEr-D"].mean, 2),
        "deviation": round(spread["CIDEr-D"].deviation, 2),
    }


@pytest.mark.parametrize("by_seed", [None, {1: GOOD}])
def test_of_one_seed_no_deviation_is_told(by_seed: dict[int, list[str]] | None) -> None:
    found = evaluation(GOOD, by_seed=by_seed)
    assert found.over_seeds == {}
    assert found.as_json()["details"][0]["over_seeds"] == []
