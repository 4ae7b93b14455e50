from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.generation import beam_search as module
from pipeline.captioner.generation.beam_search import search
from pipeline.captioner.generation.interfaces import Hypothesis
from pipeline.text.vocabulary import END, PAD, START, UNK
from tests.support.captioner import (
    add_to_logit,
    log_probability,
    log_softmax,
    logits_of,
    make_decided_decoder,
    vectors,
)

SPECIAL_TOKENS = {PAD, START, END, UNK}


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return make_decided_decoder()


def tiny_decoder(seed: int) -> Decoder:
    """Build a decoder of three words, ids 4 to 6."""
    return make_decided_decoder(vocabulary_size=7, seed=seed)


def greedily(
    decoder: Decoder, features: npt.NDArray[np.float32], max_words: int
) -> list[Hypothesis]:
    """Take the likeliest word until <end>, each time from the whole sequence."""
    found: dict[int, Hypothesis] = {}
    ids = np.full((len(features), 1), START)
    totals = np.zeros(len(features))
    for _ in range(max_words):
        scores = log_softmax(logits_of(decoder, features, ids))[:, -1]
        scores[:, [PAD, START, UNK]] = -np.inf
        totals += scores.max(axis=1)
        ids = np.column_stack([ids, scores.argmax(axis=1)])
        for photo in np.flatnonzero(ids[:, -1] == END).tolist():
            ended = Hypothesis(tuple(ids[photo, 1:-1].tolist()), totals[photo], finished=True)
            found.setdefault(photo, ended)
    for photo, words in enumerate(ids[:, 1:].tolist()):
        found.setdefault(photo, Hypothesis(tuple(words), totals[photo], finished=False))
    return [found[photo] for photo in range(len(features))]


def same(found: Sequence[Hypothesis], expected: Sequence[Hypothesis]) -> bool:
    return [(h.ids, h.finished) for h in found] == [
        (h.ids, h.finished) for h in expected
    ] and np.allclose(
        [h.log_probability for h in found], [h.log_probability for h in expected], atol=1e-4
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_beam_of_one_is_greedy_search(seed: int) -> None:
    decoder = make_decided_decoder(seed=seed)
    features = vectors()
    found = search(decoder, features, beam_width=1, max_words=6)
    assert all(len(hypotheses) == 1 for hypotheses in found)
    assert same([hypotheses[0] for hypotheses in found], greedily(decoder, features, 6))


def test_the_greedy_captions_compared_above_both_end_and_are_cut_off() -> None:
    finished = {
        hypothesis.finished
        for seed in range(4)
        for (hypothesis,) in search(make_decided_decoder(seed=seed), vectors(), 1, 6)
    }
    assert finished == {True, False}


def every_caption(
    decoder: Decoder, photo: npt.NDArray[np.float32], max_words: int
) -> Iterator[Hypothesis]:
    """Score each sequence of the three words that can end within the limit."""
    for length in range(max_words):
        sequences = list(product((4, 5, 6), repeat=length))
        features = np.repeat(photo[None], len(sequences), axis=0)
        inputs = [(START, *ids) for ids in sequences]
        scores = log_softmax(logits_of(decoder, features, inputs))
        for ids, rows in zip(sequences, scores, strict=True):
            total = sum(rows[position, word] for position, word in enumerate((*ids, END)))
            yield Hypothesis(ids, float(total), finished=True)


@pytest.mark.parametrize("seed", range(3))
def test_a_beam_as_wide_as_all_captions_finds_and_ranks_them_all(seed: int) -> None:
    # Nothing is cut where there is a place for each caption that ends within the limit, and
    # for each of the 3**4 that are four words long when the limit comes.
    decoder, photo, max_words = tiny_decoder(seed), vectors()[0], 4
    everything = sorted(every_caption(decoder, photo, max_words), key=lambda h: -h.score)
    assert len(everything) == 1 + 3 + 9 + 27
    (found,) = search(decoder, photo[None], beam_width=40 + 81, max_words=max_words)
    assert len(found) == 40 + 81
    assert same(found[: len(everything)], everything)
    assert not any(h.finished for h in found[len(everything) :])


def plainly(
    decoder: Decoder, photo: npt.NDArray[np.float32], width: int, max_words: int
) -> list[Hypothesis]:
    """Search with a beam by sorting all that follows, each time from the whole sequence."""
    live: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    done: list[Hypothesis] = []
    while live:
        inputs = [(START, *ids) for _, ids in live]
        features = np.repeat(photo[None], len(live), axis=0)
        scores = log_softmax(logits_of(decoder, features, inputs))[:, -1]
        following = sorted(
            (
                (total + float(row[word]), (*ids, word))
                for (total, ids), row in zip(live, scores, strict=True)
                for word in range(len(row))
                if word not in {PAD, START, UNK}
            ),
            reverse=True,
        )
        kept = following[: width - len(done)]
        done += [
            Hypothesis(ids[:-1], total, finished=True) for total, ids in kept if ids[-1] == END
        ]
        live = [(total, ids) for total, ids in kept if ids[-1] != END]
        if live and len(live[0][1]) == max_words:
            done += [Hypothesis(ids, total, finished=False) for total, ids in live]
            live = []
    return sorted(done, key=lambda h: (not h.finished, -h.score))


@pytest.mark.parametrize("width", [2, 3, 5])
def test_a_beam_keeps_as_many_hypotheses_ended_or_not(width: int) -> None:
    for seed in range(4):
        decoder, photos = make_decided_decoder(seed=seed), vectors()[:3]
        found = search(decoder, photos, width, max_words=5)
        for hypotheses, photo in zip(found, photos, strict=True):
            expected = plainly(decoder, photo, width, max_words=5)
            assert [h.finished for h in hypotheses] == [h.finished for h in expected]
            # Some captions are equally likely, so that their ids say nothing.
            np.testing.assert_allclose(
                [h.log_probability for h in hypotheses],
                [h.log_probability for h in expected],
                atol=1e-4,
            )


@pytest.mark.parametrize("seed", range(3))
def test_a_narrow_beam_finds_only_true_captions(seed: int) -> None:
    # It may miss the best one, whose beginning need not be among the likeliest. What it
    # finds is scored as the exhaustive search does.
    decoder, photo = tiny_decoder(seed), vectors()[1]
    everything = {h.ids: h for h in every_caption(decoder, photo, 4)}
    for width in (1, 2, 3, 5):
        (found,) = search(decoder, photo[None], beam_width=width, max_words=4)
        finished = [h for h in found if h.finished]
        assert same(finished, [everything[h.ids] for h in finished])


@pytest.mark.parametrize("width", [1, 2, 3, 7])
def test_log_probabilities_are_those_of_the_whole_sequence(decoder: Decoder, width: int) -> None:
    features = vectors()[:3]
    for photo, hypotheses in zip(features, search(decoder, features, width, 5), strict=True):
        for h in hypotheses:
            assert h.log_probability == pytest.approx(
                log_probability(decoder, photo, h.ids, finished=h.finished), abs=1e-4
            )
            assert h.score == pytest.approx(h.log_probability / (len(h.ids) + h.finished))


@pytest.mark.parametrize("width", [1, 2, 3, 7])
def test_hypotheses_are_distinct_ranked_and_of_words_alone(width: int) -> None:
    decoder = make_decided_decoder()
    for marker in (PAD, START, UNK):
        add_to_logit(decoder, marker, 50.0)
    wanted = logits_of(decoder, vectors(), [[START]] * 8).argmax(axis=-1)
    assert {*wanted.ravel().tolist()} <= {PAD, START, UNK}
    for hypotheses in search(decoder, vectors(), width, 5):
        assert len(hypotheses) == width
        for h in hypotheses:
            assert not SPECIAL_TOKENS & set(h.ids)
            assert len(h.ids) <= 5
            assert h.finished or len(h.ids) == 5
        assert len({(h.ids, h.finished) for h in hypotheses}) == width
        ranks = [(not h.finished, -h.score) for h in hypotheses]
        assert ranks == sorted(ranks)


@pytest.mark.parametrize("width", [1, 3])
def test_a_decoder_that_never_ends_is_cut_off(width: int) -> None:
    decoder = make_decided_decoder()
    add_to_logit(decoder, END, -1000.0)
    for hypotheses in search(decoder, vectors(), width, 7):
        assert len(hypotheses) == width
        assert all(len(h.ids) == 7 and not h.finished for h in hypotheses)


def test_a_decoder_that_ends_at_once_gives_an_empty_caption() -> None:
    decoder = make_decided_decoder()
    add_to_logit(decoder, END, 1000.0)
    for (hypothesis,) in search(decoder, vectors(), 1, 7):
        assert hypothesis.ids == ()
        assert hypothesis.finished
        assert hypothesis.log_probability == pytest.approx(0, abs=1e-6)


def test_hypotheses_that_were_cut_off_rank_below_those_that_ended() -> None:
    ended = Hypothesis((4,), -9.0, finished=True)
    cut = Hypothesis((4, 4, 4), -0.3, finished=False)
    beam = module._Beam(2, no_repeat_ngram_size=0, live=[], done=[cut, ended])
    assert beam.ranked() == [ended, cut]
    assert cut.score > ended.score


def test_the_mean_is_over_the_words_and_the_end() -> None:
    assert Hypothesis((4, 5), -6.0, finished=True).score == pytest.approx(-2)
    assert Hypothesis((4, 5), -6.0, finished=False).score == pytest.approx(-3)
    assert Hypothesis((), -6.0, finished=True).score == pytest.approx(-6)


@pytest.mark.parametrize("shape", [(6,), (4, 6)], ids=["pooled", "grid"])
@pytest.mark.parametrize("width", [1, 3])
def test_many_photos_at_once_give_what_each_gives_alone(
    width: int, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = make_decided_decoder(feature_shape=shape)
    features = vectors(shape, 7)
    alone = [search(decoder, photo[None], width, 5)[0] for photo in features]
    for rows in (256, 4 * width, 3 * width, 1):  # parts of 8, 4, 3 and 1 photos
        monkeypatch.setattr(module, "ROWS", rows)
        make_ensemble = search(decoder, features, width, 5)
        assert len(make_ensemble) == 7
        assert all(same(a, b) for a, b in zip(make_ensemble, alone, strict=True))


class Letters:
    """No network: says 4, 5 and the end, whatever is shown."""

    def begin(self, features: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        return [np.zeros((len(features), 1), np.float32)]

    def advance(
        self, words: npt.NDArray[np.int32], state: list[npt.NDArray[np.float32]]
    ) -> tuple[npt.NDArray[np.float32], list[npt.NDArray[np.float32]]]:
        following = {START: 4, 4: 5, 5: END}
        logits = np.zeros((len(words), 6), np.float32)
        for row, word in enumerate(words.tolist()):
            logits[row, following.get(word, END)] = 20
        return logits, [state[0] + 1]


@pytest.mark.parametrize("width", [1, 2])
def test_anything_that_begins_and_advances_can_be_searched(width: int) -> None:
    for hypotheses in search(Letters(), vectors()[:3], width, 5):
        assert len(hypotheses) == width
        assert hypotheses[0].ids == (4, 5)
        assert hypotheses[0].log_probability == pytest.approx(0, abs=1e-6)


def test_no_photos_give_no_captions(decoder: Decoder) -> None:
    assert search(decoder, vectors()[:0], 3, 5) == []


def test_a_vocabulary_smaller_than_the_beam_gives_fewer_hypotheses() -> None:
    decoder = make_decided_decoder(vocabulary_size=5)  # one word
    (found,) = search(decoder, vectors()[:1], beam_width=10, max_words=3)
    assert [h.ids for h in found if h.finished] != []
    assert {h.ids for h in found} == {(), (4,), (4, 4), (4, 4, 4)}


def test_without_any_word_the_caption_is_empty() -> None:
    (found,) = search(make_decided_decoder(vocabulary_size=4), vectors()[:1], 3, 5)
    assert [h.ids for h in found] == [()]


def test_one_word_at_most(decoder: Decoder) -> None:
    for hypotheses in search(decoder, vectors(), beam_width=3, max_words=1):
        assert {len(h.ids) for h in hypotheses} <= {0, 1}


@pytest.mark.parametrize("width", [1, 3])
def test_no_three_words_come_twice_where_they_may_not(width: int) -> None:
    loops = 0
    for seed in range(4):
        decoder = make_decided_decoder(vocabulary_size=6, seed=seed)
        add_to_logit(decoder, END, -8.0)
        for may in (True, False):
            for hypotheses in search(
                decoder, vectors(), width, 12, no_repeat_ngram_size=0 if may else 3
            ):
                for h in hypotheses:
                    trigrams = [h.ids[i : i + 3] for i in range(len(h.ids) - 2)]
                    repeats = len(trigrams) - len(set(trigrams))
                    loops += repeats * may
                    assert may or not repeats
    assert loops > 0
