import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.metrics.scorer import METRICS, Scorer
from pipeline.metrics.tokenizer import tokenize

PUBLISHED = Path(__file__).parents[2].parent / "shared" / "coco_caption"

REFERENCES = [
    [list("abcde"), list("abcf")],
    [list("vwxyz")],
    [list("mnopq"), list("mnop"), list("abx")],
    [list("efgh")],
]
CANDIDATES = [list("abce"), list("vwxa"), list("mnopq"), list("fgh")]


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="needs ../shared/coco_caption")
def test_the_published_captions_get_the_scores_of_coco_caption() -> None:
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


def test_a_resampled_corpus_scores_like_one_with_repeated_captions() -> None:
    scores = Scorer(REFERENCES).score(CANDIDATES)
    drawn = [0, 0, 1, 3]
    repeated = Scorer([REFERENCES[i] for i in drawn]).score([CANDIDATES[i] for i in drawn])
    (values,) = scores.resampled(np.array([[2.0, 1.0, 0.0, 1.0]]))
    resampled = dict(zip(METRICS, values, strict=True))
    for name in ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L"):
        assert resampled[name] == pytest.approx(repeated.corpus[name])
    # CIDEr-D keeps the idf of the original corpus.
    assert resampled["CIDEr-D"] == pytest.approx(np.mean(scores.cider_d[drawn]))


def test_missing_references_and_surplus_candidates_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one photo, and each needs a reference"):
        Scorer([])
    with pytest.raises(ValueError, match="at least one photo, and each needs a reference"):
        Scorer([[["a"]], []])
    with pytest.raises(ValueError, match="2 candidates for 1 photos"):
        Scorer([[["a"]]]).score([["a"], ["b"]])


def test_a_corpus_without_words_scores_0() -> None:
    for candidates, references in (([[]], [[["a"]]]), ([["a"]], [[[]]])):
        assert Scorer(references).score(candidates).corpus == pytest.approx(
            dict.fromkeys(METRICS, 0.0), abs=1e-6
        )
    # ROUGE-L compares the two empty captions, as in coco-caption.
    empty = Scorer([[[]]]).score([[]]).corpus
    assert empty == dict.fromkeys(METRICS, 0.0) | {"ROUGE-L": 100.0}
