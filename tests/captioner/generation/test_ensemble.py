from typing import Any

import numpy as np
import pytest

from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.generation.beam_search import search
from pipeline.captioner.generation.ensemble import Ensemble, make_ensemble
from pipeline.captioner.generation.interfaces import Hypothesis
from pipeline.text.vocabulary import START
from tests.support.captioner import (
    add_to_logit,
    log_softmax,
    make_peaked_decoder,
    sequence_logits,
    step_logits,
    vectors,
)

IDS = np.array([[START, 4, 5, 6], [START, 9, 4, 2], [START, 8, 10, 3]], np.int32)


@pytest.fixture(scope="module")
def members() -> list[Decoder]:
    """Return three decoders whose states differ in kind and number."""
    names = ["merge", "init_inject", "par_inject"]
    return [make_peaked_decoder(seed=seed, name=name) for seed, name in enumerate(names, 1)]


def test_probabilities_are_the_mean_of_the_members(members: list[Decoder]) -> None:
    features = vectors(count=3)
    probs = np.exp(step_logits(Ensemble(members), features, IDS))
    member_probs = [
        np.exp(log_softmax(sequence_logits(member, features, IDS))) for member in members
    ]
    np.testing.assert_allclose(probs, np.mean(member_probs, axis=0), atol=1e-5)
    np.testing.assert_allclose(probs.sum(axis=-1), 1, atol=1e-9)
    assert np.abs(member_probs[0] - member_probs[1]).max() > 0.1


def test_a_search_may_drop_and_repeat_rows_of_the_state(members: list[Decoder]) -> None:
    features, parents = vectors(count=3), np.array([0, 0, 2])
    ensemble = Ensemble(members)
    photos = np.arange(3)
    first, state = ensemble.advance(IDS[:, :1], photos, photos, ensemble.begin(features))
    assert len(state) == len(members)
    # Photo 1 has no hypothesis any more, photo 0 has two.
    reordered, _ = ensemble.advance(IDS[parents, :2], parents, parents, state)
    expected = step_logits(ensemble, features[parents], IDS[parents, :2])
    np.testing.assert_allclose(first[parents], expected[:, 0], atol=1e-5)
    np.testing.assert_allclose(reordered, expected[:, 1], atol=1e-5)


def beam_search(decoder: Any) -> list[list[Hypothesis]]:
    return search(decoder, vectors()[:4], beam_width=3, max_words=5)


def test_two_equal_decoders_find_the_hypotheses_of_one(members: list[Decoder]) -> None:
    expected = beam_search(members[0])
    beams = beam_search(make_ensemble([members[0]] * 2))
    for beam, expected_beam in zip(beams, expected, strict=True):
        assert [h.ids for h in beam] == [h.ids for h in expected_beam]
        np.testing.assert_allclose(
            [h.log_probability for h in beam],
            [h.log_probability for h in expected_beam],
            atol=1e-5,
        )


def test_an_ensemble_of_one_is_the_member_itself(members: list[Decoder]) -> None:
    assert make_ensemble(members[:1]) is members[0]
    assert isinstance(make_ensemble(members), Ensemble)


def test_a_word_that_is_impossible_for_one_member_stays_possible() -> None:
    word = 5
    certain, refusing = make_peaked_decoder(seed=7), make_peaked_decoder(seed=7)
    add_to_logit(certain, word, 100.0)
    add_to_logit(refusing, word, -1e6)
    log_probs = step_logits(Ensemble([certain, refusing]), vectors(count=3), IDS)
    np.testing.assert_allclose(np.exp(log_probs[..., word]), 0.5, atol=1e-6)
    # If it is impossible for all, its log-probability is still finite: a bias may be added to it.
    log_probs = step_logits(Ensemble([refusing, refusing]), vectors(count=3), IDS)
    assert np.isfinite(log_probs).all()
    assert (log_probs[..., word] < -700).all()


def test_attention_maps_are_the_mean_of_the_members_that_have_them() -> None:
    shape = (4, 6)
    pair = [make_peaked_decoder(feature_shape=shape, seed=s, name="attention") for s in (1, 2)]
    without_attention = make_peaked_decoder(feature_shape=shape)
    features = vectors(shape, 3)
    mean = Ensemble([*pair, without_attention]).attention_maps(features, IDS)
    assert mean is not None
    first, second = (decoder.attention_maps(features, IDS) for decoder in pair)
    assert first is not None
    assert second is not None
    assert np.abs(first - second).max() > 0.01
    np.testing.assert_allclose(mean, (first + second) / 2, atol=1e-6)
    ensemble = Ensemble([without_attention, without_attention])
    assert ensemble.attention_maps(features, IDS) is None
