from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.generation.beam_search import search
from pipeline.captioner.generation.ensemble import Ensemble, make_ensemble
from pipeline.captioner.generation.interfaces import Hypothesis
from pipeline.text.vocabulary import START
from tests.support.captioner import (
    add_to_logit,
    log_softmax,
    logits_of,
    make_decided_decoder,
    vectors,
)

IDS = np.array([[START, 4, 5, 6], [START, 9, 4, 2], [START, 8, 10, 3]], np.int32)


@pytest.fixture(scope="module")
def members() -> list[Decoder]:
    """Return three decoders, whose states are of different kinds and numbers."""
    names = ["merge", "init_inject", "par_inject"]
    return [make_decided_decoder(seed=seed, name=name) for seed, name in enumerate(names, 1)]


def step_by_step(
    decoder: Any, features: npt.NDArray[np.float32], ids: npt.NDArray[np.int32]
) -> npt.NDArray[np.float64]:
    """Return what `advance` gives after each word, (B, T, V)."""
    state = decoder.begin(features)
    found = []
    for words in ids.T:
        logits, state = decoder.advance(np.ascontiguousarray(words), state)
        found.append(logits)
    return np.stack(found, axis=1)


def test_probabilities_are_the_mean_of_the_members(members: list[Decoder]) -> None:
    features = vectors(count=3)
    found = np.exp(step_by_step(Ensemble(members), features, IDS))
    alone = [np.exp(log_softmax(logits_of(member, features, IDS))) for member in members]
    np.testing.assert_allclose(found, np.mean(alone, axis=0), atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-9)
    assert np.abs(alone[0] - alone[1]).max() > 0.1


def test_a_search_may_exchange_rows_of_the_states(members: list[Decoder]) -> None:
    features, order = vectors(count=3), [2, 0, 0]
    ensemble = Ensemble(members)
    first, state = ensemble.advance(IDS[:, 0], ensemble.begin(features))
    assert len(state) == sum(len(member.begin(features)) for member in members)
    exchanged, _ = ensemble.advance(IDS[order, 1], [array[order] for array in state])
    expected = step_by_step(ensemble, features[order], IDS[order, :2])
    np.testing.assert_allclose(first[order], expected[:, 0], atol=1e-5)
    np.testing.assert_allclose(exchanged, expected[:, 1], atol=1e-5)


def found_by(decoder: Any) -> list[list[Hypothesis]]:
    return search(decoder, vectors()[:4], beam_width=3, max_words=5)


def test_two_equal_decoders_find_what_one_finds(members: list[Decoder]) -> None:
    for alone, both in zip(
        found_by(members[0]), found_by(make_ensemble([members[0]] * 2)), strict=True
    ):
        assert [h.ids for h in both] == [h.ids for h in alone]
        np.testing.assert_allclose(
            [h.log_probability for h in both], [h.log_probability for h in alone], atol=1e-5
        )


def test_one_alone_is_asked_itself(members: list[Decoder]) -> None:
    assert make_ensemble(members[:1]) is members[0]
    assert isinstance(make_ensemble(members), Ensemble)


def test_a_word_impossible_to_one_is_still_possible() -> None:
    word = 5
    sure, refuses = make_decided_decoder(seed=7), make_decided_decoder(seed=7)
    add_to_logit(sure, word, 100.0)
    add_to_logit(refuses, word, -1e6)
    scores = step_by_step(Ensemble([sure, refuses]), vectors(count=3), IDS)
    np.testing.assert_allclose(np.exp(scores[..., word]), 0.5, atol=1e-6)
    # And one impossible to all is no infinity, which nothing could be added to.
    scores = step_by_step(Ensemble([refuses, refuses]), vectors(count=3), IDS)
    assert np.isfinite(scores).all()
    assert (scores[..., word] < -700).all()


def test_it_looks_where_its_members_look_on_average() -> None:
    pair = [make_decided_decoder(feature_shape=(4, 6), seed=s, name="attention") for s in (1, 2)]
    blind = make_decided_decoder(feature_shape=(4, 6))
    features = vectors((4, 6), 3)
    looked = Ensemble([*pair, blind]).attention_maps(features, IDS)
    assert looked is not None
    one, other = (decoder.attention_maps(features, IDS) for decoder in pair)
    assert one is not None
    assert other is not None
    assert np.abs(one - other).max() > 0.01
    np.testing.assert_allclose(looked, (one + other) / 2, atol=1e-6)
    assert Ensemble([blind, blind]).attention_maps(features, IDS) is None
