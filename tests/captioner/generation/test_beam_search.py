from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.generation import beam_search as module
from pipeline.captioner.generation.beam_search import search
from pipeline.captioner.generation.interfaces import Hypothesis, rank
from pipeline.text.vocabulary import END, PAD, START, UNK
from tests.support.captioner import (
    StatelessDecoder,
    add_to_logit,
    log_probability,
    log_softmax,
    make_peaked_decoder,
    sequence_logits,
    vectors,
)

SPECIAL_TOKENS = {PAD, START, END, UNK}


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return make_peaked_decoder()


def make_three_word_decoder(seed: int) -> Decoder:
    """Build a decoder with a vocabulary of three words, ids 4 to 6."""
    return make_peaked_decoder(vocabulary_size=7, seed=seed)


def greedy_search(
    decoder: Decoder, features: npt.NDArray[np.float32], max_words: int
) -> list[Hypothesis]:
    """Take the most likely word until <end>, each time with the whole-sequence network."""
    hypotheses: dict[int, Hypothesis] = {}
    ids = np.full((len(features), 1), START)
    totals = np.zeros(len(features))
    for position in range(max_words + 1):
        log_probs = log_softmax(sequence_logits(decoder, features, ids))[:, -1]
        log_probs[:, [PAD, START, UNK]] = -np.inf
        totals += log_probs.max(axis=1) if position < max_words else log_probs[:, END]
        ids = np.column_stack([ids, log_probs.argmax(axis=1)])
        for photo in np.flatnonzero(ids[:, -1] == END).tolist():
            ended = Hypothesis(tuple(ids[photo, 1:-1].tolist()), totals[photo], finished=True)
            hypotheses.setdefault(photo, ended)
    for photo, words in enumerate(ids[:, 1:-1].tolist()):
        hypotheses.setdefault(photo, Hypothesis(tuple(words), totals[photo], finished=False))
    return [hypotheses[photo] for photo in range(len(features))]


def are_close(hypotheses: Sequence[Hypothesis], expected: Sequence[Hypothesis]) -> bool:
    return [(h.ids, h.finished) for h in hypotheses] == [
        (h.ids, h.finished) for h in expected
    ] and np.allclose(
        [h.log_probability for h in hypotheses], [h.log_probability for h in expected], atol=1e-4
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_width_of_one_is_greedy_search(seed: int) -> None:
    decoder = make_peaked_decoder(seed=seed)
    features = vectors()
    beams = search(decoder, features, beam_width=1, max_words=6)
    assert all(len(beam) == 1 for beam in beams)
    assert are_close([beam[0] for beam in beams], greedy_search(decoder, features, 6))


def test_the_greedy_captions_compared_above_include_finished_and_cut_off_ones() -> None:
    finished = {
        hypothesis.finished
        for seed in range(4)
        for (hypothesis,) in search(make_peaked_decoder(seed=seed), vectors(), 1, 6)
    }
    assert finished == {True, False}


def all_captions(
    decoder: Decoder, photo: npt.NDArray[np.float32], max_words: int
) -> Iterator[Hypothesis]:
    """Score every sequence of at most `max_words` of the three words, with <end>."""
    for length in range(max_words + 1):
        sequences = list(product((4, 5, 6), repeat=length))
        features = np.repeat(photo[None], len(sequences), axis=0)
        inputs = [(START, *ids) for ids in sequences]
        log_probs = log_softmax(sequence_logits(decoder, features, inputs))
        for ids, rows in zip(sequences, log_probs, strict=True):
            total = sum(rows[position, word] for position, word in enumerate((*ids, END)))
            yield Hypothesis(ids, float(total), finished=True)


def log_probabilities(hypotheses: Sequence[Hypothesis]) -> list[float]:
    return [hypothesis.log_probability for hypothesis in hypotheses]


@pytest.mark.parametrize("seed", range(3))
def test_a_beam_as_wide_as_all_captions_finds_and_ranks_them_all(seed: int) -> None:
    # The beam has a place for each caption, so nothing is pruned.
    decoder, photo, max_words = make_three_word_decoder(seed), vectors()[0], 4
    expected = sorted(all_captions(decoder, photo, max_words), key=lambda h: (not h.ids, -h.score))
    assert len(expected) == 1 + 3 + 9 + 27 + 81
    (beam,) = search(decoder, photo[None], beam_width=len(expected), max_words=max_words)
    assert [h.ids for h in beam] == [h.ids for h in expected]
    np.testing.assert_allclose(log_probabilities(beam), log_probabilities(expected), atol=1e-4)
    assert {len(h.ids) for h in beam if not h.finished} == {max_words}


def reference_beam_search(
    decoder: Decoder, photo: npt.NDArray[np.float32], width: int, max_words: int
) -> list[Hypothesis]:
    """Search by sorting all continuations, each time with the whole-sequence network."""
    live: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    completed: list[Hypothesis] = []
    while live:
        inputs = [(START, *ids) for _, ids in live]
        features = np.repeat(photo[None], len(live), axis=0)
        log_probs = log_softmax(sequence_logits(decoder, features, inputs))[:, -1]
        continuations = sorted(
            (
                (total + float(row[word]), (*ids, word))
                for (total, ids), row in zip(live, log_probs, strict=True)
                for word in range(len(row))
                if word not in {PAD, START, UNK}
            ),
            reverse=True,
        )
        best = continuations[: width - len(completed)]
        if len(live[0][1]) < max_words:
            completed += [
                Hypothesis(ids[:-1], total, finished=True) for total, ids in best if ids[-1] == END
            ]
            live = [(total, ids) for total, ids in best if ids[-1] != END]
            continue
        completed += [
            Hypothesis(
                ids,
                total + float(row[END]),
                bool(row[END] == row[[END, *range(4, len(row))]].max()),
            )
            for (total, ids), row in zip(live, log_probs, strict=True)
        ]
        live = []
    return sorted(completed, key=lambda h: (not h.ids, -h.score))


@pytest.mark.parametrize("width", [2, 3, 5])
def test_a_completed_hypothesis_keeps_its_place_in_the_beam(width: int) -> None:
    for seed in range(4):
        decoder, photos = make_peaked_decoder(seed=seed), vectors()[:3]
        beams = search(decoder, photos, width, max_words=5)
        for beam, photo in zip(beams, photos, strict=True):
            expected = reference_beam_search(decoder, photo, width, max_words=5)
            assert [h.finished for h in beam] == [h.finished for h in expected]
            # The ids are not compared: some captions are equally likely.
            np.testing.assert_allclose(
                [h.log_probability for h in beam],
                [h.log_probability for h in expected],
                atol=1e-4,
            )


@pytest.mark.parametrize("seed", range(3))
def test_a_narrow_beam_scores_its_captions_as_the_exhaustive_search_does(seed: int) -> None:
    # It may miss the best one, whose first words may not be among the most likely.
    decoder, photo = make_three_word_decoder(seed), vectors()[1]
    captions = {h.ids: h for h in all_captions(decoder, photo, 4)}
    for width in (1, 2, 3, 5):
        (beam,) = search(decoder, photo[None], beam_width=width, max_words=4)
        expected = [captions[h.ids] for h in beam]
        np.testing.assert_allclose(log_probabilities(beam), log_probabilities(expected), atol=1e-4)


@pytest.mark.parametrize("width", [1, 2, 3, 7])
def test_log_probabilities_are_those_of_the_whole_sequence(decoder: Decoder, width: int) -> None:
    features = vectors()[:3]
    for photo, beam in zip(features, search(decoder, features, width, 5), strict=True):
        for h in beam:
            assert h.log_probability == pytest.approx(
                log_probability(decoder, photo, h.ids), abs=1e-4
            )
            assert h.score == pytest.approx(h.log_probability / (len(h.ids) + 1) ** 0.8)


@pytest.mark.parametrize("width", [1, 2, 3, 7])
def test_hypotheses_are_distinct_ranked_and_without_special_tokens(width: int) -> None:
    decoder = make_peaked_decoder()
    for token in (PAD, START, UNK):
        add_to_logit(decoder, token, 50.0)
    most_likely = sequence_logits(decoder, vectors(), [[START]] * 8).argmax(axis=-1)
    assert {*most_likely.ravel().tolist()} <= {PAD, START, UNK}
    for beam in search(decoder, vectors(), width, 5):
        assert len(beam) == width
        for h in beam:
            assert not SPECIAL_TOKENS & set(h.ids)
            assert len(h.ids) <= 5
            assert h.finished or len(h.ids) == 5
        assert len({h.ids for h in beam}) == width
        ranks = [(not h.ids, -h.score) for h in beam]
        assert ranks == sorted(ranks)


@pytest.mark.parametrize("width", [1, 3])
def test_a_decoder_that_never_ends_is_cut_off(width: int) -> None:
    decoder = make_peaked_decoder()
    add_to_logit(decoder, END, -1000.0)
    for beam in search(decoder, vectors(), width, 7):
        assert len(beam) == width
        assert all(len(h.ids) == 7 and not h.finished for h in beam)


def test_a_decoder_that_ends_at_once_gives_an_empty_caption() -> None:
    decoder = make_peaked_decoder()
    add_to_logit(decoder, END, 1000.0)
    for (hypothesis,) in search(decoder, vectors(), 1, 7):
        assert hypothesis.ids == ()
        assert hypothesis.finished
        assert hypothesis.log_probability == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("width", [1, 3, 5])
def test_a_limit_that_no_caption_exceeds_changes_nothing(width: int, seed: int) -> None:
    decoder = make_peaked_decoder(seed=seed)
    add_to_logit(decoder, END, 2.0)
    for photo in vectors():
        (beam,) = search(decoder, photo[None], width, max_words=30)
        longest = max(len(h.ids) for h in beam)
        if longest < 30:
            (limited,) = search(decoder, photo[None], width, max_words=max(longest, 1))
            assert [h.ids for h in limited] == [h.ids for h in beam]
            assert log_probabilities(limited) == pytest.approx(log_probabilities(beam))


def test_a_caption_of_exactly_the_limit_is_finished() -> None:
    (beam,) = search(FixedCaption(), vectors()[:1], 1, max_words=2)
    assert [(h.ids, h.finished) for h in beam] == [((4, 5), True)]


class Sentence(StatelessDecoder):
    """A decoder that predicts the words 4 to 9 in turn, and hardly <end> before the last."""

    def predict(self, words: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        probabilities = np.full((len(words), 10), 1e-9, np.float32)
        for row, word in enumerate(words.tolist()):
            probabilities[row, END] = 1e-4 if word < 9 else 0.9
            probabilities[row, 4 if word == START else min(word + 1, 9)] = 0.9
        return np.log(probabilities)


@pytest.mark.parametrize("width", [1, 3, 20])
@pytest.mark.parametrize("max_words", range(1, 9))
def test_no_caption_is_empty_because_of_the_limit(max_words: int, width: int) -> None:
    (beam,) = search(Sentence(), vectors()[:1], width, max_words)
    assert beam[0].ids == tuple(range(4, 10))[:max_words]
    assert beam[0].finished == (max_words >= 6)
    assert all(h.ids for h in beam[:-1])


def test_a_finished_hypothesis_beats_a_likelier_one_whose_forced_end_is_unlikely() -> None:
    finished = Hypothesis((4,), -4.0, finished=True)
    cut_off = Hypothesis((4, 4, 4), -0.3 - 12, finished=False)
    empty = Hypothesis((), -0.1, finished=True)
    beam = [empty, cut_off, finished]
    assert rank(beam, [h.score for h in beam]) == [finished, cut_off, empty]
    assert rank([cut_off, finished], [-2.0, -3.0]) == [cut_off, finished]


def test_the_score_is_normalized_by_the_number_of_words_and_the_end() -> None:
    assert Hypothesis((4, 5), -6.0, finished=True).score == pytest.approx(-6 / 3**0.8)
    assert Hypothesis((4, 5), -6.0, finished=False).score == pytest.approx(-6 / 3**0.8)
    assert Hypothesis((), -6.0, finished=True).score == pytest.approx(-6)


@pytest.mark.parametrize("shape", [(6,), (4, 6)], ids=["pooled", "grid"])
@pytest.mark.parametrize("width", [1, 3])
def test_photos_get_the_same_captions_in_a_batch_as_alone(
    width: int, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = make_peaked_decoder(feature_shape=shape)
    features = vectors(shape, 7)
    alone = [search(decoder, photo[None], width, 5)[0] for photo in features]
    for rows in (256, 4 * width, 3 * width, 1):  # batches of 8, 4, 3 and 1 photos
        monkeypatch.setattr(module, "ROWS_PER_STEP", rows)
        beams = search(decoder, features, width, 5)
        assert len(beams) == 7
        assert all(are_close(a, b) for a, b in zip(beams, alone, strict=True))


class FixedCaption(StatelessDecoder):
    """A decoder without a network: predicts the words 4, 5 and <end> for every photo."""

    def predict(self, words: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        next_words = {START: 4, 4: 5, 5: END}
        logits = np.zeros((len(words), 6), np.float32)
        for row, word in enumerate(words.tolist()):
            logits[row, next_words.get(word, END)] = 20
        return logits


@pytest.mark.parametrize("width", [1, 2])
def test_any_step_decoder_can_be_searched(width: int) -> None:
    for beam in search(FixedCaption(), vectors()[:3], width, 5):
        assert len(beam) == width
        assert beam[0].ids == (4, 5)
        assert beam[0].log_probability == pytest.approx(0, abs=1e-6)


def test_no_photos_give_no_captions(decoder: Decoder) -> None:
    assert search(decoder, vectors()[:0], 3, 5) == []


def test_a_vocabulary_smaller_than_the_beam_gives_fewer_hypotheses() -> None:
    decoder = make_peaked_decoder(vocabulary_size=5)  # one word
    (beam,) = search(decoder, vectors()[:1], beam_width=10, max_words=3)
    assert [h.ids for h in beam if h.finished] != []
    assert {h.ids for h in beam} == {(), (4,), (4, 4), (4, 4, 4)}


def test_without_any_word_the_caption_is_empty() -> None:
    (beam,) = search(make_peaked_decoder(vocabulary_size=4), vectors()[:1], 3, 5)
    assert [h.ids for h in beam] == [()]


def test_max_words_can_be_one(decoder: Decoder) -> None:
    for beam in search(decoder, vectors(), beam_width=3, max_words=1):
        assert {len(h.ids) for h in beam} <= {0, 1}


def count_repeated_ngrams(ids: Sequence[int], size: int) -> int:
    ngrams = [tuple(ids[i : i + size]) for i in range(len(ids) - size + 1)]
    return len(ngrams) - len(set(ngrams))


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("width", [1, 3])
def test_no_ngram_of_the_given_size_occurs_twice(width: int, size: int) -> None:
    repeats, shorter_repeats = 0, 0
    for seed in range(4):
        decoder = make_peaked_decoder(vocabulary_size=6, seed=seed)
        add_to_logit(decoder, END, -8.0)
        for beam in search(decoder, vectors(), width, 12):
            repeats += sum(count_repeated_ngrams(h.ids, size) for h in beam)
        for beam in search(decoder, vectors(), width, 12, no_repeat_ngram_size=size):
            for h in beam:
                assert not count_repeated_ngrams(h.ids, size)
                shorter_repeats += count_repeated_ngrams(h.ids, size - 1) if size > 1 else 0
    assert repeats > 0
    # Shorter n-grams may still occur twice.
    assert shorter_repeats > 0 or size == 1


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_wide_beam_with_no_repeated_ngrams_finds_all_captions_without_any(size: int) -> None:
    decoder, photo, max_words = make_three_word_decoder(0), vectors()[0], 4
    captions = all_captions(decoder, photo, max_words)
    expected = [h for h in captions if not count_repeated_ngrams(h.ids, size)]
    count = {1: 1 + 3 + 6 + 6, 2: 1 + 3 + 9 + 24 + 60, 3: 1 + 3 + 9 + 27 + 78}[size]
    assert len(expected) == count
    (beam,) = search(decoder, photo[None], 121, max_words, no_repeat_ngram_size=size)
    expected.sort(key=lambda h: (not h.ids, -h.score))
    assert [h.ids for h in beam] == [h.ids for h in expected]
    np.testing.assert_allclose(log_probabilities(beam), log_probabilities(expected), atol=1e-4)


def brute_force_extensions(
    logits: npt.NDArray[Any],
    offsets: npt.NDArray[np.float64],
    photos: npt.NDArray[np.int_],
    counts: npt.NDArray[np.int_],
) -> list[tuple[int, int]]:
    """Return row and word of each photo's best extensions by sorting all of them."""
    result: list[tuple[int, int]] = []
    for photo, count in enumerate(counts.tolist()):
        extensions = [
            (-(offsets[row] + logits[row, word]), int(row), word)
            for row in np.flatnonzero(photos == photo)
            for word in np.flatnonzero(np.isfinite(offsets[row] + logits[row])).tolist()
        ]
        result += [(row, word) for _, row, word in sorted(extensions)[:count]]
    return result


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("levels", [4, 100_000], ids=["many equal", "few equal"])
@pytest.mark.parametrize("vocabulary_size", [7, 300, 700])
def test_the_best_extensions_of_each_photo_are_found_earlier_ones_first_among_equals(
    vocabulary_size: int, levels: int, dtype: Any
) -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        photos = np.sort(rng.integers(0, 4, 12))
        shape = len(photos), vocabulary_size
        logits = (rng.integers(0, levels, shape) * (9 / levels) - 30).astype(dtype)
        logits[rng.random(shape) < 0.1] = -np.inf
        logits[rng.random(len(photos)) < 0.05] = np.nan
        offsets = rng.integers(0, 3, len(photos)) * rng.choice([1.0, 0.1])
        counts = rng.integers(0, 20, 4)
        expected = brute_force_extensions(logits, offsets, photos, counts)
        rows, words, totals = module._best_extensions(logits, offsets, photos, counts)
        assert list(zip(rows.tolist(), words.tolist(), strict=True)) == expected
        np.testing.assert_array_equal(totals, offsets[rows] + logits[rows, words])


def test_numbers_beyond_float32_and_infinite_ones_are_no_exception() -> None:
    logits = np.array([[1e30, -1e30, 5e29, -np.inf], [np.nan, 1, 2, 3]])
    rows, words, _ = module._best_extensions(logits, np.zeros(2), np.zeros(2, int), np.array([3]))
    assert (rows.tolist(), words.tolist()) == ([0, 0, 1], [0, 2, 3])


class Uniform(StatelessDecoder):
    """A decoder for which all words, and <end>, are equally likely."""

    def predict(self, words: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        return np.zeros((len(words), 1000), np.float32)


def test_of_equally_likely_words_the_ones_with_lower_ids_are_chosen() -> None:
    (beam,) = search(Uniform(), vectors()[:1], beam_width=4, max_words=1)
    assert [(h.ids, h.finished) for h in beam] == [
        *(((4,), True), ((5,), True), ((6,), True), ((), True)),
    ]


def test_nan_logits_give_a_cut_off_hypothesis() -> None:
    class Broken(Uniform):
        def predict(self, words: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
            return np.full((len(words), 1000), np.nan, np.float32)

    (beam,) = search(Broken(), vectors()[:1], beam_width=4, max_words=3)
    assert beam == [Hypothesis((), 0.0, finished=False)]
