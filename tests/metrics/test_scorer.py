import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.metrics.scorer import METRICS, Scorer
from pipeline.metrics.tokenizer import tokenize

PUBLISHED = Path(__file__).parents[2].parent / "shared" / "coco_caption"

GROUPS = [
    [list("abcde"), list("abcf")],
    [list("vwxyz")],
    [list("mnopq"), list("mnop"), list("abx")],
    [list("efgh")],
]
CANDIDATES = [list("abce"), list("vwxa"), list("mnopq"), list("fgh")]


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the captions of ../shared are not there")
def test_the_published_captions_score_what_coco_caption_gives_them() -> None:
    candidates = json.loads((PUBLISHED / "candidates.json").read_text(encoding="utf-8"))
    references = json.loads((PUBLISHED / "references.json").read_text(encoding="utf-8"))
    assert len(candidates) == 1000
    scorer = Scorer([[tokenize(caption) for caption in references[i]] for i in candidates])
    corpus = scorer.score([tokenize(caption) for caption in candidates.values()]).corpus
    assert {name: round(score, 2) for name, score in corpus.items()} == {
        "BLEU-1": 60.76,
        "BLEU-2": 41.90,
        "BLEU-3": 27.90,
        "BLEU-4": 18.27,
        "ROUGE-L": 44.70,
        "CIDEr-D": 47.91,
    }


def test_a_corpus_of_repeated_captions_is_what_its_weights_say() -> None:
    scores = Scorer(GROUPS).score(CANDIDATES)
    twice = [0, 0, 1, 3]
    again = Scorer([GROUPS[i] for i in twice]).score([CANDIDATES[i] for i in twice])
    (weighted,) = scores.weighted(np.array([[2.0, 1.0, 0.0, 1.0]]))
    found = dict(zip(METRICS, weighted, strict=True))
    for name in ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L"):
        assert found[name] == pytest.approx(again.corpus[name])
    # The weights of words stay those of the whole corpus.
    assert found["CIDEr-D"] == pytest.approx(np.mean(scores.cider_d[twice]))


def test_a_mixed_corpus_takes_each_caption_from_one_of_two() -> None:
    scorer = Scorer(GROUPS)
    others = [list("abc"), list("wx"), list("m"), list("efgh")]
    mixed = [CANDIDATES[0], others[1], others[2], CANDIDATES[3]]
    theirs = np.array([[False, True, True, False]])
    (found,) = scorer.score(CANDIDATES).mixed(scorer.score(others), theirs)
    assert found.tolist() == pytest.approx(list(scorer.score(mixed).corpus.values()))


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(ValueError, match="every photo needs a reference"):
        Scorer([])
    with pytest.raises(ValueError, match="every photo needs a reference"):
        Scorer([[["a"]], []])
    with pytest.raises(ValueError, match="2 candidates for 1 photos"):
        Scorer([[["a"]]]).score([["a"], ["b"]])


def test_a_corpus_without_any_word_scores_nothing() -> None:
    for candidates, groups in (([[]], [[["a"]]]), ([[]], [[[]]]), ([["a"]], [[[]]])):
        assert Scorer(groups).score(candidates).corpus == dict.fromkeys(METRICS, 0.0)
