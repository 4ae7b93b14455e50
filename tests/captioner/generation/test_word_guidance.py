from collections import Counter
from typing import Any

import numpy as np
import pytest

from pipeline.captioner.generation.beam_search import search
from pipeline.captioner.generation.interfaces import Hypothesis
from pipeline.captioner.generation.sampling import Sampling, sample
from pipeline.captioner.generation.word_guidance import WordGuided, with_word_guidance
from pipeline.captioner.neighbours import fit_neighbours
from pipeline.captioner.word_detector import WordDetector
from pipeline.text.vocabulary import END, PAD, SPECIAL_TOKENS, START, UNK
from tests.support.captioner import make_peaked_decoder, make_vocabulary, vectors

SIZE = len(make_vocabulary())


class FixedDetector(WordDetector):
    """Detects the same words in every photo: its weights are the shares of captions."""

    def detect(self, features: Any) -> Any:
        return np.tile(self.weights[0], (len(features), 1))


def make_detector(
    shares: dict[int, float], idf_values: dict[int, float] | None = None
) -> WordDetector:
    """Return a detector of these shares of captions; the prior of every word is a tenth."""
    prior = np.full(SIZE, 0.1, np.float32)
    prior[: len(SPECIAL_TOKENS)] = 0
    detected, idf = prior.copy(), np.ones(SIZE, np.float32)
    idf[: len(SPECIAL_TOKENS)] = 0
    detected[list(shares)] = list(shares.values())
    if idf_values:
        idf[list(idf_values)] = list(idf_values.values())
    return FixedDetector(np.zeros(6, np.float32), detected[None], prior, idf)


def make_hypothesis(ids: list[int], score: float, *, finished: bool = True) -> Hypothesis:
    """Return a hypothesis with this mean log-probability."""
    return Hypothesis(tuple(ids), score * (len(ids) + 1) ** 0.8, finished)


def rerank(
    detector: WordDetector, rerank_weight: float, *hypotheses: Hypothesis
) -> list[Hypothesis]:
    decoder = WordGuided(make_peaked_decoder(), detector, 0.0, rerank_weight)
    (reranked,) = decoder.rerank(vectors(count=1), [hypotheses])
    return reranked


def test_detected_words_are_biased_by_their_log_odds_until_the_caption_has_them() -> None:
    decoder, features = make_peaked_decoder(), vectors(count=2)
    detector = make_detector({5: 0.9, 6: 0.0})
    guided = WordGuided(decoder, detector, 0.5, 0.0)
    start, rows = np.full((2, 1), START, np.int32), np.arange(2)
    logits, state = decoder.advance(start, rows, rows, decoder.begin(features))
    guided_logits, guided_state = guided.advance(start, rows, rows, guided.begin(features))
    bias = np.zeros(SIZE)
    bias[5], bias[6] = 0.5 * np.log(0.92 / 0.12), 0.5 * np.log(0.02 / 0.12)
    np.testing.assert_allclose(guided_logits - logits, np.tile(bias, (2, 1)), atol=1e-5)
    # The first caption goes on with the detected word, the second with an undetected one.
    ids = np.array([[START, 5], [START, 6]], np.int32)
    logits, _ = decoder.advance(ids, rows, rows, state)
    guided_logits, _ = guided.advance(ids, rows, rows, guided_state)
    bias_after_word = bias.copy()
    bias_after_word[5] = 0
    np.testing.assert_allclose(guided_logits - logits, [bias_after_word, bias], atol=1e-5)


def test_a_search_may_drop_and_repeat_rows_of_the_state() -> None:
    decoder, features = make_peaked_decoder(), vectors(count=3)
    rng = np.random.default_rng(0)
    detector = WordDetector(
        np.zeros(6, np.float32),
        rng.normal(size=(6, SIZE)).astype(np.float32),
        np.full(SIZE, 0.3, np.float32),
        np.ones(SIZE, np.float32),
    )
    guided = WordGuided(decoder, detector, 1.0, 0.0)
    ids, rows = np.array([[START, 5], [START, 6], [START, 7]], np.int32), np.arange(3)
    logits, state = guided.advance(ids, rows, rows, guided.begin(features))
    # Photo 1 has no hypothesis any more, photo 0 has two.
    order = np.array([0, 0, 2])
    some_logits, _ = guided.advance(ids[order], order, order, guided.begin(features))
    np.testing.assert_allclose(some_logits, logits[order], atol=1e-4)
    assert np.abs(logits - decoder.advance(ids, rows, rows, state[1])[0]).max() > 0.1


LIKELY = make_hypothesis([5, 6, 7], -0.5)
DETECTED = make_hypothesis([5, 8, 7], -0.6)


def test_a_hypothesis_with_detected_words_comes_first_if_it_is_likely_enough() -> None:
    detector = make_detector({6: 0.0, 8: 0.8})
    assert rerank(detector, 3.0, LIKELY, DETECTED) == [DETECTED, LIKELY]
    assert rerank(detector, 0.0, LIKELY, DETECTED) == [LIKELY, DETECTED]
    unlikely = make_hypothesis(list(DETECTED.ids), -4.0)
    assert rerank(detector, 3.0, LIKELY, unlikely) == [LIKELY, unlikely]


def test_rare_words_count_for_more() -> None:
    shares = {6: 0.4, 8: 0.4}
    with_6, with_8 = make_hypothesis([5, 6], -0.5), make_hypothesis([5, 8], -0.5)
    assert rerank(make_detector(shares, {8: 5.0}), 3.0, with_6, with_8) == [with_8, with_6]
    assert rerank(make_detector(shares, {6: 5.0}), 3.0, with_6, with_8) == [with_6, with_8]


def test_agreement_is_the_cosine_of_the_caption_s_words_and_the_detected_ones() -> None:
    idf = {word: 0.5 * word for word in range(len(SPECIAL_TOKENS), SIZE)}
    detector = make_detector({5: 0.5, 6: 0.2, 8: 0.9}, idf)
    hypotheses = [make_hypothesis(ids, -1.0) for ids in ([5, 6, 6], [8], [9, 5], [])]
    detected = detector.detect(vectors(count=1))[0] * detector.idf

    def cosine(hypothesis: Hypothesis) -> float:
        words = np.array([word in hypothesis.ids for word in range(SIZE)]) * detector.idf
        norms = np.linalg.norm(words) * np.linalg.norm(detected)
        return float(words @ detected / norms) if norms else 0.0

    by_cosine = sorted(hypotheses, key=lambda h: -cosine(h))
    assert rerank(detector, 1.0, *hypotheses) == by_cosine
    # A better cosine makes up for a lower score up to the weight times the cosines' difference.
    best, second = by_cosine[:2]
    margin = 2 * (cosine(best) - cosine(second))
    for penalty, first in ((0.99 * margin, best), (1.01 * margin, second)):
        less_likely = make_hypothesis(list(best.ids), -1.0 - penalty)
        assert rerank(detector, 2.0, less_likely, second)[0].ids == first.ids


def test_an_empty_hypothesis_stays_last_whatever_is_detected() -> None:
    empty = make_hypothesis([], -0.1)
    cut_off = make_hypothesis([5, 8, 7], -9.0, finished=False)
    assert rerank(make_detector({8: 0.9}), 0.1, empty, cut_off, LIKELY)[-1] == empty


def test_if_nothing_is_detected_the_order_is_that_of_the_scores() -> None:
    detector = make_detector(dict.fromkeys(range(SIZE), 0.0))
    assert rerank(detector, 3.0, DETECTED, LIKELY) == [LIKELY, DETECTED]


def test_a_beam_search_returns_the_same_hypotheses_reranked() -> None:
    decoder, features = make_peaked_decoder(), vectors()
    guided = with_word_guidance(decoder, make_detector({5: 0.9, 9: 0.7}), 0.0, 5.0)
    assert isinstance(guided, WordGuided)
    beams = search(decoder, features, 8, 5)
    reranked = search(guided, features, 8, 5)
    assert [Counter(beam) for beam in reranked] == [Counter(beam) for beam in beams]
    assert any(new[0] != old[0] for new, old in zip(reranked, beams, strict=True))
    assert reranked == guided.rerank(features, beams)


def test_greedy_search_and_sampling_use_the_logit_bias_too() -> None:
    features = vectors()
    guided = with_word_guidance(make_peaked_decoder(), make_detector({9: 1.0}), 50.0, 0.0)
    assert all(beam[0].ids[0] == 9 for beam in search(guided, features, 1, 5))
    drawn = sample(guided, features, 3, 5, Sampling())
    assert all(h.ids[0] == 9 for hypotheses in drawn for h in hypotheses)


def test_the_consensus_with_neighbours_is_added_to_the_score() -> None:
    detector = make_detector({})
    # All photos lie in one direction, and are captioned with the less likely hypothesis.
    captions = {"a": [list(DETECTED.ids)], "b": [list(DETECTED.ids)], "c": [[7]]}
    neighbours = fit_neighbours(
        captions, lambda ids: np.ones((len([*ids]), 6), np.float32), detector
    )
    directions = detector.directions(vectors(count=1))
    ((first, second),) = neighbours.consensus(directions, [[DETECTED.ids, LIKELY.ids]])
    assert first > second
    tie = (LIKELY.score - DETECTED.score) / (first - second)
    beams = [[LIKELY, DETECTED]]
    for weight, best in ((0.99 * tie, LIKELY), (1.01 * tie, DETECTED)):
        guided = with_word_guidance(make_peaked_decoder(), detector, 0.0, 0.0, neighbours, weight)
        assert isinstance(guided, WordGuided)
        assert guided.rerank(vectors(count=1), beams)[0][0] == best
        assert guided.rerank(vectors(count=1), [[LIKELY]]) == [[LIKELY]]


def test_weights_of_0_return_the_decoder_itself() -> None:
    decoder = make_peaked_decoder()
    assert with_word_guidance(decoder, make_detector({}), 0.0, 0.0) is decoder


def test_attention_maps_are_those_of_the_decoder() -> None:
    features, ids = vectors((4, 6))[:2], np.array([[START, 4], [START, 9]], np.int32)
    attention = make_peaked_decoder(name="attention", feature_shape=(4, 6))
    maps = WordGuided(attention, make_detector({}), 0.3, 3.0).attention_maps(features, ids)
    np.testing.assert_array_equal(maps, attention.attention_maps(features, ids))
    merge = make_peaked_decoder(feature_shape=(4, 6))
    assert WordGuided(merge, make_detector({}), 0.3, 3.0).attention_maps(features, ids) is None


def test_special_tokens_have_no_bias() -> None:
    guided = WordGuided(make_peaked_decoder(), make_detector({5: 0.9}), 1.0, 0.0)
    bias = guided.begin(vectors(count=1))[0]
    assert not bias[0, [PAD, START, END, UNK]].any()


def test_words_are_detected_once_per_search_for_bias_and_reranking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []
    detect = FixedDetector.detect

    def recording(self: FixedDetector, features: Any) -> Any:
        calls.append(len(features))
        return detect(self, features)

    monkeypatch.setattr(FixedDetector, "detect", recording)
    guided = WordGuided(make_peaked_decoder(), make_detector({5: 0.9}), 1.0, 1.0)
    search(guided, vectors(count=2), 2, 4)
    search(guided, vectors(count=2), 2, 4)
    assert calls == [2, 2]
