from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.generation.beam_search import search
from pipeline.captioner.generation.interfaces import Hypothesis
from pipeline.captioner.generation.sampling import Sampling, sample
from pipeline.text.vocabulary import END, PAD, START, UNK
from tests.support.captioner import StatelessDecoder, log_probability, make_peaked_decoder, vectors

MAX_WORDS = 6


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return make_peaked_decoder(vocabulary_size=8)


class FixedDistribution(StatelessDecoder):
    """A decoder with the same distribution at every step, whatever the photo and the words."""

    LOGITS = np.log([1e-9, 1e-9, 0.1, 1e-9, 0.6, 0.2, 0.1])  # of ids 0 to 6; 2 is <end>

    def predict(self, words: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        return np.repeat(self.LOGITS[None], len(words), axis=0)


def first_words(sampling: Sampling, count: int = 4000) -> dict[int, float]:
    """Return the relative frequency of each first word; END stands for an empty caption."""
    (hypotheses,) = sample(FixedDistribution(), vectors()[:1], count, MAX_WORDS, sampling)
    counts = Counter(h.ids[0] if h.ids else END for h in hypotheses)
    return {word: times / count for word, times in counts.items()}


def test_words_are_drawn_with_their_probabilities() -> None:
    assert first_words(Sampling()) == pytest.approx({END: 0.1, 4: 0.6, 5: 0.2, 6: 0.1}, abs=0.03)


def test_a_low_temperature_sharpens_and_a_high_one_flattens() -> None:
    cold, hot = (first_words(Sampling(temperature=t)) for t in (0.5, 2.0))
    total = 0.6**2 + 0.2**2 + 2 * 0.1**2
    assert cold[4] == pytest.approx(0.6**2 / total, abs=0.03)
    assert hot[4] < 0.6 < cold[4]


def test_top_k_draws_from_the_most_likely_words_only() -> None:
    assert set(first_words(Sampling(top_k=1))) == {4}
    assert first_words(Sampling(top_k=2)) == pytest.approx({4: 0.75, 5: 0.25}, abs=0.03)
    assert first_words(Sampling(top_k=99)).keys() == {END, 4, 5, 6}


@pytest.mark.parametrize(
    ("top_p", "words"), [(0.01, {4}), (0.6, {4}), (0.7, {4, 5}), (0.999, {END, 4, 5, 6})]
)
def test_top_p_draws_from_the_nucleus_only(top_p: float, words: set[int]) -> None:
    assert first_words(Sampling(top_p=top_p)).keys() == words


def test_a_top_k_of_one_is_greedy_search(decoder: Decoder) -> None:
    drawn = sample(decoder, vectors(), 1, MAX_WORDS, Sampling(top_k=1))
    greedy = search(decoder, vectors(), 1, MAX_WORDS)
    assert [h[0].ids for h in drawn] == [h[0].ids for h in greedy]
    assert [h[0].finished for h in drawn] == [h[0].finished for h in greedy]


def test_log_probabilities_are_the_decoder_s_at_any_temperature(decoder: Decoder) -> None:
    features = vectors()
    drawn = sample(decoder, features, 3, MAX_WORDS, Sampling(temperature=1.5, seed=3))
    assert {h.finished for hypotheses in drawn for h in hypotheses} == {True, False}
    for row, hypotheses in enumerate(drawn):
        assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)
        for h in hypotheses:
            expected = log_probability(decoder, features[row], h.ids)
            assert h.log_probability == pytest.approx(expected, abs=1e-4)


def test_special_tokens_are_never_drawn(decoder: Decoder) -> None:
    drawn = sample(decoder, vectors(), 20, MAX_WORDS, Sampling(temperature=50))
    words = {word for hypotheses in drawn for h in hypotheses for word in h.ids}
    assert words
    assert not words & {PAD, START, END, UNK}
    assert all(len(h.ids) <= MAX_WORDS for hypotheses in drawn for h in hypotheses)


def test_captions_follow_from_the_seed(decoder: Decoder) -> None:
    def draw(seed: int) -> list[list[Hypothesis]]:
        return sample(decoder, vectors(), 5, MAX_WORDS, Sampling(seed=seed))

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_a_photo_gets_the_same_captions_whatever_photos_are_in_its_batch(decoder: Decoder) -> None:
    def draw(features: npt.NDArray[np.float32]) -> list[list[tuple[int, ...]]]:
        captions = sample(decoder, features, 5, MAX_WORDS, Sampling(seed=1))
        return [[h.ids for h in hypotheses] for hypotheses in captions]

    batch = draw(vectors())
    assert [draw(vectors()[row : row + 1])[0] for row in range(len(batch))] == batch
    assert draw(vectors()[::-1].copy()) == batch[::-1]
    # Photos with the same distribution still get different captions.
    captions = sample(FixedDistribution(), vectors(), 20, MAX_WORDS, Sampling(seed=1))
    assert len({tuple(h.ids for h in hypotheses) for hypotheses in captions}) == len(captions)


def test_no_temperature_is_too_low(decoder: Decoder) -> None:
    coldest = sample(decoder, vectors(), 1, MAX_WORDS, Sampling(temperature=1e-310))
    greedy = search(decoder, vectors(), 1, MAX_WORDS)
    assert [h[0].ids for h in coldest] == [h[0].ids for h in greedy]


def test_no_photos_give_no_captions(decoder: Decoder) -> None:
    assert sample(decoder, vectors()[:0], 3, MAX_WORDS, Sampling()) == []


def test_a_caption_of_exactly_the_limit_can_be_finished(decoder: Decoder) -> None:
    longer = sample(decoder, vectors(), 50, 10 * MAX_WORDS, Sampling(seed=4))
    limited = sample(decoder, vectors(), 50, MAX_WORDS, Sampling(seed=4))
    at_limit = 0
    for long_captions, captions in zip(longer, limited, strict=True):
        # The random numbers are the same up to the limit, so what fits is drawn again.
        fitting = Counter(h for h in long_captions if len(h.ids) <= MAX_WORDS)
        assert fitting == Counter(h for h in captions if h.finished)
        at_limit += sum(len(h.ids) == MAX_WORDS for h in fitting)
    assert at_limit > 0
