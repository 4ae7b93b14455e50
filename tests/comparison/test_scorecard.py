import math
from pathlib import Path

import pytest

from pipeline.comparison.caption_files import Captions
from pipeline.comparison.scorecard import Scorecard, score_files
from tests.comparison.test_caption_files import WRITERS, write_caption_json

PUBLISHED = Path(__file__).parents[2].parent / "shared" / "coco_caption"

CANDIDATES: Captions = {"1": ["The cat sat."], "2": ["a dog ran"]}
REFERENCES: Captions = {"1": ["the cat sat on"], "2": ["A dog ran!"]}


def make_scorecard(candidates: Path, references: Path) -> Scorecard:
    return score_files(candidates, references, None, None, subset=False)


def score_captions(tmp_path: Path, candidates: Captions, references: Captions) -> Scorecard:
    write_caption_json(tmp_path / "candidates.json", candidates)
    write_caption_json(tmp_path / "references.json", references)
    return make_scorecard(tmp_path / "candidates.json", tmp_path / "references.json")


def test_a_small_corpus_gets_the_scores_worked_out_by_hand(tmp_path: Path) -> None:
    # All n-grams match; there is no 4-gram, and the precision of none is 1e-6. The corpus has
    # 6 words for 7 in the references.
    brevity = 100 * math.exp(1 - 7 / 6)
    # Precision and recall of the first photo are 1 and 3 / 4; those of the second are 1.
    rouge_l = 100 * ((1 + 1.2**2) * 0.75 / (0.75 + 1.2**2) + 1) / 2
    # Every n-gram belongs to one photo, so all have the same idf: cosines of counts. The first
    # photo has a small length penalty, for a difference of one word.
    cosines = 3 / math.sqrt(3 * 4) + 2 / math.sqrt(2 * 3) + 1 / math.sqrt(1 * 2)
    cider_d = 1000 * (cosines / 4 * math.exp(-1 / (2 * 6**2)) + 3 / 4) / 2
    expected = [brevity, brevity, brevity, brevity * 1e-6**0.25, rouge_l, cider_d]
    corpus = score_captions(tmp_path, CANDIDATES, REFERENCES).corpus
    assert list(corpus) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D"]
    assert list(corpus.values()) == [round(value, 2) for value in expected]


@pytest.mark.parametrize("name", WRITERS)
def test_the_scores_do_not_depend_on_the_file_format(tmp_path: Path, name: str) -> None:
    expected = score_captions(tmp_path, CANDIDATES, REFERENCES)
    candidates, references = tmp_path / f"candidates-{name}", tmp_path / f"references-{name}"
    WRITERS[name](candidates, CANDIDATES)
    WRITERS[name](references, REFERENCES)
    assert make_scorecard(candidates, references).corpus == expected.corpus
    assert make_scorecard(candidates, tmp_path / "references.json").lines() == expected.lines()


def test_photos_with_differently_typed_accents_are_paired(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    perfect = score_captions(
        tmp_path,
        {decomposed: [f"a {composed} here"], "2": ["犬 が 走る"]},
        {composed: [f"a {decomposed} here"], "2": ["犬 が 走る"]},
    )
    assert perfect.corpus["BLEU-1"] == perfect.corpus["ROUGE-L"] == 100


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs ../shared/coco_caption")
def test_the_published_captions_get_the_scores_of_coco_caption() -> None:
    card = make_scorecard(PUBLISHED / "candidates.json", PUBLISHED / "references.json")
    assert list(card.corpus.values()) == [60.76, 41.90, 27.90, 18.27, 44.70, 47.91]
    assert card.pairing.notes == []
    first, *lines = card.lines()
    assert first == "1000 photos; x100, with 95 % bootstrap intervals"
    for line in lines:
        _, value, low, _, high = line.split()
        assert float(low) < float(value) < float(high)
        assert float(high) - float(low) < 7


def test_one_photo_has_neither_cider_nor_an_interval(tmp_path: Path) -> None:
    card = score_captions(tmp_path, {"1": ["a dog"]}, {"1": ["a dog", "the dog"]})
    assert card.corpus["CIDEr-D"] is None
    assert card.lines() == [
        "1 photo; x100",
        "BLEU-1    100.00",
        "BLEU-2    100.00",
        "BLEU-3      1.00",  # as coco-caption smooths an order without an n-gram
        "BLEU-4      0.10",
        "ROUGE-L   100.00",
        "CIDEr-D      n/a",
        "1 photo is too few to tell a difference from chance: use 30 or more, better some hundreds",
    ]
    assert any("CIDEr-D is n/a for a single photo" in note for note in card.pairing.notes)


def test_captions_without_words_score_0(tmp_path: Path) -> None:
    empty = score_captions(tmp_path, {"1": [""], "2": ["."]}, REFERENCES)
    assert set(empty.corpus.values()) == {0}
    assert set(
        score_captions(tmp_path, CANDIDATES, {"1": [""], "2": ["", "?"]}).corpus.values()
    ) == {0}
