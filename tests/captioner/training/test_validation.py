from pathlib import Path

import pytest

from pipeline.captioner.generation.beam_search import search
from pipeline.captioner.training.validation import Validation
from pipeline.metrics.scorer import Scorer
from pipeline.metrics.tokenizer import tokenize
from tests.support.captioner import make_peaked_decoder, make_store, make_vocabulary, vectors

REFERENCES = {
    "0.jpg": ["A dog runs .", "a big dog"],
    "2.jpg": ["Two cats sleep on grass", "a cat"],
    "5.jpg": ["grass", "A bed on grass"],
}


@pytest.mark.parametrize("part", [2, 256], ids=["in chunks", "at once"])
@pytest.mark.parametrize("beam_width", [1, 3])
def test_validation_scores_the_captions_that_the_search_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beam_width: int, part: int
) -> None:
    monkeypatch.setattr("pipeline.features.store._CHUNK", part)
    store, vocabulary = make_store(tmp_path / "features.h5"), make_vocabulary()
    decoder = make_peaked_decoder()
    validation = Validation(store, vocabulary, REFERENCES, beam_width, max_words=6)
    results = search(decoder, vectors()[[0, 2, 5]], beam_width, 6, no_repeat_ngram_size=3)
    captions = [tokenize(vocabulary.decode(hypotheses[0].ids)) for hypotheses in results]
    groups = [[tokenize(raw) for raw in group] for group in REFERENCES.values()]
    expected = Scorer(groups).score(captions).corpus["CIDEr-D"]
    assert validation.cider_d(decoder) == pytest.approx(expected)
    assert validation.cider_d(decoder) == validation.cider_d(decoder)
