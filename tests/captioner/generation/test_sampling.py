from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.generation.beam_search import search
from pipeline.captioner.generation.interfaces import Hypothesis
from pipeline.captioner.generation.sampling import Sampling, sample
from pipeline.text.vocabulary import END, PAD, START, UNK
from tests.support.captioner import log_probability, make_decided_decoder, vectors

WORDS = 6


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return make_decided_decoder(vocabulary_size=8)


class Coin:
    """Says one of three words, then ends; whatever came before."""

    SHARES = np.log([1e-9, 1e-9, 0.1, 1e-9, 0.6, 0.2, 0.1])  # of ids 0 to 6; 2 is the end

    def begin(self, features: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        return [features]

    def advance(
        self, words: npt.NDArray[np.int32], state: list[npt.NDArray[np.float32]]
    ) -> tuple[npt.NDArray[np.float64], list[npt.NDArray[np.float32]]]:
        return np.repeat(self.SHARES[None], len(words), axis=0), state


def first_words(sampling: Sampling, count: int = 4000) -> dict[int, float]:
    """Return the share of each first word, END where there is none."""
    (drawn,) = sample(Coin(), vectors()[:1], count, WORDS, sampling)
    found = Counter(h.ids[0] if h.ids else END for h in drawn)
    return {word: times / count for word, times in found.items()}


def test_words_come_as_often_as_the_model_thinks() -> None:
    assert first_words(Sampling()) == pytest.approx({END: 0.1, 4: 0.6, 5: 0.2, 6: 0.1}, abs=0.03)


def test_a_low_temperature_sharpens_and_a_high_one_flattens() -> None:
    cold, hot = (first_words(Sampling(temperature=t)) for t in (0.5, 2.0))
    total = 0.6**2 + 0.2**2 + 2 * 0.1**2
    assert cold[4] == pytest.approx(0.6**2 / total, abs=0.03)
    assert hot[4] < 0.6 < cold[4]


def test_only_the_likeliest_words_are_drawn_if_asked() -> None:
    assert set(first_words(Sampling(top_k=1))) == {4}
    assert first_words(Sampling(top_k=2)) == pytest.approx({4: 0.75, 5: 0.25}, abs=0.03)
    assert first_words(Sampling(top_k=99)).keys() == {END, 4, 5, 6}


@pytest.mark.parametrize(
    ("top_p", "words"), [(0.01, {4}), (0.6, {4}), (0.7, {4, 5}), (0.999, {END, 4, 5, 6})]
)
def test_only_words_that_hold_the_share_are_drawn(top_p: float, words: set[int]) -> None:
    assert first_words(Sampling(top_p=top_p)).keys() == words


def test_one_word_left_is_greedy_search(decoder: Decoder) -> None:
    drawn = sample(decoder, vectors(), 1, WORDS, Sampling(top_k=1))
    found = search(decoder, vectors(), 1, WORDS)
    assert [h[0].ids for h in drawn] == [h[0].ids for h in found]
    assert [h[0].finished for h in drawn] == [h[0].finished for h in found]


def test_log_probabilities_are_the_models_own(decoder: Decoder) -> None:
    features = vectors()
    found = sample(decoder, features, 3, WORDS, Sampling(temperature=1.5, seed=3))
    assert {h.finished for hypotheses in found for h in hypotheses} == {True, False}
    for row, hypotheses in enumerate(found):
        assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)
        for h in hypotheses:
            expected = log_probability(decoder, features[row], h.ids, finished=h.finished)
            assert h.log_probability == pytest.approx(expected, abs=1e-4)


def test_markers_never_come_out(decoder: Decoder) -> None:
    found = sample(decoder, vectors(), 20, WORDS, Sampling(temperature=50))
    words = {word for hypotheses in found for h in hypotheses for word in h.ids}
    assert words
    assert not words & {PAD, START, END, UNK}
    assert all(len(h.ids) <= WORDS for hypotheses in found for h in hypotheses)


def test_the_seed_decides(decoder: Decoder) -> None:
    def drawn(seed: int) -> list[list[Hypothesis]]:
        return sample(decoder, vectors(), 5, WORDS, Sampling(seed=seed))

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_a_photo_gets_the_same_captions_whatever_is_beside_it(decoder: Decoder) -> None:
    def drawn(features: npt.NDArray[np.float32]) -> list[list[tuple[int, ...]]]:
        found = sample(decoder, features, 5, WORDS, Sampling(seed=1))
        return [[h.ids for h in hypotheses] for hypotheses in found]

    make_ensemble = drawn(vectors())
    assert [
        drawn(vectors()[row : row + 1])[0] for row in range(len(make_ensemble))
    ] == make_ensemble
    assert drawn(vectors()[::-1].copy()) == make_ensemble[::-1]
    # And photos of which the same is thought do not get the same captions by that.
    unlike = sample(Coin(), vectors(), 20, WORDS, Sampling(seed=1))
    assert len({tuple(h.ids for h in hypotheses) for hypotheses in unlike}) == len(unlike)


def test_no_temperature_is_too_low(decoder: Decoder) -> None:
    coldest = sample(decoder, vectors(), 1, WORDS, Sampling(temperature=1e-310))
    found = search(decoder, vectors(), 1, WORDS)
    assert [h[0].ids for h in coldest] == [h[0].ids for h in found]


def test_no_photos_give_no_captions(decoder: Decoder) -> None:
    assert sample(decoder, vectors()[:0], 3, WORDS, Sampling()) == []
