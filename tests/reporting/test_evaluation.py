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


def photos(times: int) -> dict[str, list[str]]:
    """Return photos with their references: the three of REFERENCES, so many times."""
    copies = {f"{n}-{name}": group for n in range(1, times) for name, group in REFERENCES.items()}
    return REFERENCES | copies


def predictions(search: str, captions: Sequence[str], *, finished: bool = True) -> list[Prediction]:
    return [
        Prediction(image_id, search, caption, -1.0, finished=finished)
        for image_id, caption in zip(photos(len(captions) // 3), captions, strict=True)
    ]


def evaluation(
    greedy: Sequence[str],
    beam: Sequence[str] | None = None,
    by_seed: Mapping[int, Sequence[str]] | None = None,
    *,
    times: int = 1,
) -> Evaluation:
    searches = {"greedy": predictions("greedy", greedy)}
    if beam is not None:
        searches["beam_3"] = predictions("beam_3", beam, finished=False)
    return evaluate(
        searches,
        primary_search=list(searches)[-1],
        references=photos(times),
        training=["A dog runs !", "a man sits"],
        vocabulary=Vocabulary.build(["a dog runs a red bus cat the sat"], 1, "f" * 64),
        clean_references=["a dog runs", "two cats"],
        perplexity=8.125,
        provenance={"split": "test"},
        detected={"1.jpg": ["dog"]},
        by_seed={
            seed: {"greedy": predictions("greedy", captions)}
            for seed, captions in (by_seed or {}).items()
        },
    )


def test_bleu_of_a_small_case_computed_by_hand() -> None:
    greedy = evaluation(GOOD).searches["greedy"]
    # Of eight words, a, dog, runs, cat, a, red and bus match; four of five bigrams match, and
    # two of two trigrams. The references closest in length have nine words in total.
    brevity = math.exp(1 - 9 / 8)
    assert greedy.corpus["BLEU-1"] == pytest.approx(100 * brevity * 7 / 8)
    assert greedy.corpus["BLEU-2"] == pytest.approx(100 * brevity * math.sqrt(7 / 8 * 4 / 5))
    # No caption has four words: coco-caption divides its tiny constant by its small one.
    product = 7 / 8 * 4 / 5 * 2 / 2 * (1e-15 / 1e-9)
    assert greedy.corpus["BLEU-4"] == pytest.approx(100 * brevity * product**0.25)


def test_each_search_has_its_caption_statistics() -> None:
    result = evaluation(GOOD, ["a dog runs", "a dog runs", "a bus runs on a street"])
    greedy, beam = result.searches["greedy"], result.searches["beam_3"]
    assert greedy.distinct == 100
    assert beam.distinct == pytest.approx(200 / 3)
    assert greedy.copied == pytest.approx(100 / 3)  # case and punctuation are ignored
    assert beam.mean_length == 4
    assert (greedy.unfinished, beam.unfinished) == (0, 100)
    assert greedy.words_used == pytest.approx(100 * 6 / 8)
    assert result.unknown_words == pytest.approx(100 * 2 / 5)


def test_the_json_has_a_dozen_numbers_at_the_top_and_the_rest_in_lists() -> None:
    flat = evaluation(GOOD, GOOD).as_json()
    assert json.loads(json.dumps(flat)) == flat
    (details,) = flat.pop("details")
    assert list(flat) == [
        *METRICS,
        "CIDEr-D greedy",
        "CIDEr-D constant caption",
        "CIDEr-D shuffled features",
        "CIDEr-D model leave-one-out",
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
        "model leave-one-out",
        "human agreement",
    ]
    assert details["provenance"] == {"split": "test"}


def test_a_model_with_the_same_caption_for_every_photo_does_not_use_the_image() -> None:
    assert evaluation(GOOD * 10, times=10).uses_image is True
    assert evaluation(["a dog runs"] * 30, times=10).uses_image is False


def test_of_few_photos_nothing_is_said() -> None:
    for captions in (GOOD, ["a dog runs"] * 3):
        assert evaluation(captions).uses_image is None
        assert not evaluation(captions).has_enough_photos
    assert evaluation(GOOD * 10, times=10).has_enough_photos


def test_case_and_punctuation_of_raw_captions_do_not_count() -> None:
    greedy = evaluation(["a DOG , runs", "the cat sat", "a red bus ."]).searches["greedy"]
    assert greedy.corpus["BLEU-2"] == pytest.approx(100)


def test_each_photo_is_scored_against_its_own_references() -> None:
    swapped = evaluation([GOOD[2], GOOD[0], GOOD[1]]).searches["greedy"]
    assert swapped.corpus["CIDEr-D"] < evaluation(GOOD).searches["greedy"].corpus["CIDEr-D"]


def test_captions_without_words_score_zero() -> None:
    result = evaluation([""] * 3)
    assert result.searches["greedy"].corpus == dict.fromkeys(METRICS, 0.0)
    assert result.searches["greedy"].mean_length == 0
    assert evaluation([""] * 30, times=10).uses_image is None  # there is nothing to lose


def test_several_seeds_have_their_scores_and_their_spread() -> None:
    by_seed = {1: GOOD, 2: ["a dog", "a cat", "a bus"], 3: ["a dog runs"] * 3}
    result = evaluation(GOOD, by_seed=by_seed)
    corpora = [evaluation(captions).searches["greedy"].corpus for captions in by_seed.values()]
    assert [result.seeds[seed]["greedy"] for seed in by_seed] == corpora
    spread = result.over_seeds["greedy"]
    assert list(spread) == list(METRICS)
    for metric in METRICS:
        scores = [corpus[metric] for corpus in corpora]
        assert spread[metric].mean == pytest.approx(statistics.mean(scores))
        assert spread[metric].deviation == pytest.approx(statistics.stdev(scores))
    assert spread["CIDEr-D"].deviation > 1

    (details,) = result.as_json()["details"]
    assert [(row["seed"], row["search"]) for row in details["seeds"]] == [
        (seed, "greedy") for seed in by_seed
    ]
    (row,) = details["over_seeds"]
    assert row["search"] == "greedy"
    assert row["CIDEr-D"] == {
        "mean": round(spread["CIDEr-D"].mean, 2),
        "deviation": round(spread["CIDEr-D"].deviation, 2),
    }


@pytest.mark.parametrize("by_seed", [None, {1: GOOD}])
def test_a_single_seed_has_no_spread(by_seed: dict[int, list[str]] | None) -> None:
    result = evaluation(GOOD, by_seed=by_seed)
    assert result.over_seeds == {}
    assert result.as_json()["details"][0]["over_seeds"] == []
