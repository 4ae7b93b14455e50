from collections import Counter
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from ruamel.yaml import YAML

from pipeline.captioner.captioner import WORD_AGREEMENT, WORD_BIAS
from pipeline.captioner.generation.beam_search import search
from pipeline.captioner.generation.interfaces import Hypothesis
from pipeline.captioner.generation.sampling import Sampling, sample
from pipeline.captioner.generation.word_guidance import WordGuided, with_word_guidance
from pipeline.captioner.word_detector import WordDetector
from pipeline.cli.image import image
from pipeline.comparison.run_captions import DEFAULT_SEARCH
from pipeline.reporting.predictions import search_name
from pipeline.text.vocabulary import END, MARKERS, PAD, START, UNK
from tests.support.captioner import make_decided_decoder, make_vocabulary, vectors
from tests.support.project import ROOT

SIZE = len(make_vocabulary())


class Told(WordDetector):
    """A detector that is told what it detects in any photo."""

    def detect(self, features: Any) -> Any:
        return np.tile(self.weights[0], (len(features), 1))


def told(shares: dict[int, float], idf: dict[int, float] | None = None) -> WordDetector:
    """Return what detects these shares of captions, of words that are usual in a tenth."""
    prior = np.full(SIZE, 0.1, np.float32)
    prior[: len(MARKERS)] = 0
    detected, rare = prior.copy(), np.ones(SIZE, np.float32)
    rare[: len(MARKERS)] = 0
    detected[list(shares)] = list(shares.values())
    if idf:
        rare[list(idf)] = list(idf.values())
    return Told(np.zeros(6, np.float32), detected[None], prior, rare)


def hypothesis(ids: list[int], score: float, *, finished: bool = True) -> Hypothesis:
    """Return one of that mean log-probability."""
    return Hypothesis(tuple(ids), score * (len(ids) + finished), finished)


def ranked(detector: WordDetector, rerank_weight: float, *found: Hypothesis) -> list[Hypothesis]:
    decoder = make_decided_decoder()
    (best_first,) = WordGuided(decoder, detector, 0.0, rerank_weight).rank(
        vectors(count=1), [found]
    )
    return best_first


def test_detected_words_are_likelier_by_how_much_they_surprise_until_they_are_said() -> None:
    decoder, features = make_decided_decoder(), vectors(count=2)
    detector = told({5: 0.9, 6: 0.0})
    start = np.full(2, START, np.int32)
    plain, state = decoder.advance(start, decoder.begin(features))
    decoder_told = WordGuided(decoder, detector, 0.5, 0.0)
    logits, carried = decoder_told.advance(start, decoder_told.begin(features))
    more = np.zeros(SIZE)
    more[5], more[6] = 0.5 * np.log(0.92 / 0.12), 0.5 * np.log(0.02 / 0.12)
    np.testing.assert_allclose(logits - plain, np.tile(more, (2, 1)), atol=1e-5)
    # One caption says the word detected, the other the one that is missing.
    words = np.array([5, 6], np.int32)
    after, _ = decoder.advance(words, state)
    later, _ = decoder_told.advance(words, carried)
    more_said = more.copy()
    more_said[5] = 0
    np.testing.assert_allclose(later - after, [more_said, more], atol=1e-5)


def test_a_search_may_exchange_rows_of_the_state() -> None:
    decoder, features, order = make_decided_decoder(), vectors(count=3), [2, 0, 0]
    rng = np.random.default_rng(0)
    detector = WordDetector(
        np.zeros(6, np.float32),
        rng.normal(size=(6, SIZE)).astype(np.float32),
        np.full(SIZE, 0.3, np.float32),
        np.ones(SIZE, np.float32),
    )
    asked = WordGuided(decoder, detector, 1.0, 0.0)
    words = np.array([5, 6, 7], np.int32)
    logits, state = asked.advance(words, asked.begin(features))
    again, _ = asked.advance(words[order], [array[order] for array in asked.begin(features)])
    np.testing.assert_allclose(again, logits[order], atol=1e-4)
    assert len(state) == 1 + len(decoder.begin(features))
    assert np.abs(logits - decoder.advance(words, decoder.begin(features))[0]).max() > 0.1


LIKELY = hypothesis([5, 6, 7], -0.5)
TRUE = hypothesis([5, 8, 7], -0.6)


def test_what_says_the_detected_words_comes_first_if_it_is_likely_enough() -> None:
    detector = told({6: 0.0, 8: 0.8})
    assert ranked(detector, 3.0, LIKELY, TRUE) == [TRUE, LIKELY]
    assert ranked(detector, 0.0, LIKELY, TRUE) == [LIKELY, TRUE]
    unlikely = hypothesis(list(TRUE.ids), -4.0)
    assert ranked(detector, 3.0, LIKELY, unlikely) == [LIKELY, unlikely]


def test_rare_words_count_for_more() -> None:
    detected = {6: 0.4, 8: 0.4}
    one, other = hypothesis([5, 6], -0.5), hypothesis([5, 8], -0.5)
    assert ranked(told(detected, {8: 5.0}), 3.0, one, other) == [other, one]
    assert ranked(told(detected, {6: 5.0}), 3.0, one, other) == [one, other]


def test_agreement_is_the_cosine_of_the_words_that_are_told_and_detected() -> None:
    idf = {word: 0.5 * word for word in range(len(MARKERS), SIZE)}
    detector = told({5: 0.5, 6: 0.2, 8: 0.9}, idf)
    found = [hypothesis(ids, -1.0) for ids in ([5, 6, 6], [8], [9, 5], [])]
    detected = detector.detect(vectors(count=1))[0] * detector.idf

    def cosine(h: Hypothesis) -> float:
        told_words = np.array([word in h.ids for word in range(SIZE)]) * detector.idf
        lengths = np.linalg.norm(told_words) * np.linalg.norm(detected)
        return float(told_words @ detected / lengths) if lengths else 0.0

    by_cosine = sorted(found, key=lambda h: -cosine(h))
    assert ranked(detector, 1.0, *found) == by_cosine
    # What likelihood makes up for is what cosines differ by, times the agreement's weight.
    best, second = by_cosine[:2]
    lost = 2 * (cosine(best) - cosine(second))
    for less, first in ((0.99 * lost, best), (1.01 * lost, second)):
        behind = hypothesis(list(best.ids), -1.0 - less)
        assert ranked(detector, 2.0, behind, second)[0].ids == first.ids


def test_what_was_cut_off_stays_behind_what_ended() -> None:
    cut_off = hypothesis([5, 8, 7], -0.1, finished=False)
    assert ranked(told({8: 0.9}), 3.0, cut_off, LIKELY) == [LIKELY, cut_off]


def test_nothing_detected_leaves_the_order_of_likelihood() -> None:
    null_features = told(dict.fromkeys(range(SIZE), 0.0))
    assert ranked(null_features, 3.0, TRUE, LIKELY) == [LIKELY, TRUE]


def test_a_beam_has_the_same_hypotheses_in_the_order_of_the_evidence() -> None:
    decoder, features = make_decided_decoder(), vectors()
    detector = told({5: 0.9, 9: 0.7})
    asked = features, 8, 5
    beams = search(decoder, *asked)
    found = search(with_word_guidance(decoder, detector, 0.0, 5.0), *asked)
    assert [Counter(photo) for photo in found] == [Counter(beam) for beam in beams]
    assert any(photo[0] != beam[0] for photo, beam in zip(found, beams, strict=True))
    expected = WordGuided(decoder, detector, 0.0, 5.0).rank(features, beams)
    assert found == expected


def test_greedy_search_and_samples_hear_of_words_too() -> None:
    decoder, features = make_decided_decoder(), vectors()
    sure = with_word_guidance(decoder, told({9: 1.0}), 50.0, 0.0)
    assert all(photo[0].ids[0] == 9 for photo in search(sure, features, 1, 5))
    drawn = sample(sure, features, 3, 5, Sampling())
    assert all(h.ids[0] == 9 for photo in drawn for h in photo)


def test_what_counts_for_nothing_leaves_the_decoder_as_it_was() -> None:
    decoder = make_decided_decoder()
    assert with_word_guidance(decoder, told({}), 0.0, 0.0) is decoder


def test_it_looks_where_the_decoder_looks() -> None:
    features, ids = vectors((4, 6))[:2], np.array([[START, 4], [START, 9]], np.int32)
    looking = make_decided_decoder(name="attention", feature_shape=(4, 6))
    found = WordGuided(looking, told({}), 0.3, 3.0).look(features, ids)
    np.testing.assert_array_equal(found, looking.look(features, ids))
    seeing = make_decided_decoder(feature_shape=(4, 6))
    assert WordGuided(seeing, told({}), 0.3, 3.0).look(features, ids) is None


def test_ends_are_neither_likelier_nor_less_likely() -> None:
    detector = told({5: 0.9})
    added = WordGuided(make_decided_decoder(), detector, 1.0, 0.0).begin(vectors(count=1))[0]
    assert not added[0, [PAD, START, END, UNK]].any()


def test_the_command_s_beam_is_the_widest_of_evaluate() -> None:
    params = YAML(typ="safe").load(Path(ROOT, "params.yaml"))
    width = max(params["evaluate"]["beam_widths"])
    (option,) = [option for option in image.params if option.name == "beam_width"]
    assert isinstance(option, click.Option)
    assert f"[default: {width}]" in str(option.help)
    assert search_name(width) == DEFAULT_SEARCH


@pytest.mark.parametrize(
    ("name", "constant"), [("word_logit_bias", WORD_BIAS), ("word_rerank_weight", WORD_AGREEMENT)]
)
def test_one_strength_is_the_default_everywhere(name: str, constant: float) -> None:
    params = YAML(typ="safe").load(Path(ROOT, "params.yaml"))
    (option,) = [option for option in image.params if option.name == name]
    assert params["evaluate"][name] == constant == option.default
