from typing import Any

import numpy as np
import pytest

from pipeline.captioner.decoders.decoder import DECODERS
from pipeline.captioner.generation.guidance import with_guidance
from pipeline.captioner.generation.interfaces import StepDecoder
from pipeline.text.vocabulary import START
from tests.support.captioner import make_decided_decoder, vectors

IDS = np.array([[START, 4, 5, 6], [START, 9, 7, 4]], np.int32)


def said(decoder: StepDecoder, features: Any) -> Any:
    """Return the logits of each step, (T, B, V)."""
    state, found = decoder.begin(features), []
    for words in IDS.T:
        logits, state = decoder.advance(np.ascontiguousarray(words), state)
        found.append(logits)
    return np.array(found)


@pytest.mark.parametrize("norm", ["none", "center", "l2"])
@pytest.mark.parametrize("name", list(DECODERS))
def test_the_difference_a_photo_makes_is_added_in_part(name: str, norm: str) -> None:
    shape = (4, 6)
    decoder = make_decided_decoder(
        name=name, feature_shape=shape, feature_norm=norm, spatial_residual_size=2
    )
    features = vectors(shape)[:2]
    null_features = np.zeros_like(features) + decoder.null_features
    assert decoder.null_features.any() == (norm == "center")
    seen, unseen = said(decoder, features), said(decoder, null_features)
    assert np.abs(seen - unseen).max() > 0.1
    np.testing.assert_array_equal(unseen[:, 0][0], unseen[:, 1][0])  # after the same word
    expected = seen + 0.5 * (seen - unseen)
    np.testing.assert_allclose(said(with_guidance(decoder, 0.5), features), expected, atol=1e-3)


def test_vectors_are_guided_as_places_are() -> None:
    decoder = make_decided_decoder()
    features = vectors()[:2]
    expected = 1.5 * said(decoder, features) - 0.5 * said(decoder, np.zeros_like(features))
    np.testing.assert_allclose(said(with_guidance(decoder, 0.5), features), expected, atol=1e-3)


def test_without_strength_the_decoder_is_what_it_was() -> None:
    decoder = make_decided_decoder()
    assert with_guidance(decoder, 0.0) is decoder


def test_it_looks_where_the_decoder_looks_with_the_photo() -> None:
    features = vectors((4, 6))[:2]
    looking = make_decided_decoder(name="attention", feature_shape=(4, 6))
    found = with_guidance(looking, 0.5).attention_maps(features, IDS)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(found, looking.attention_maps(features, IDS))
    seeing = make_decided_decoder(feature_shape=(4, 6))
    assert with_guidance(seeing, 0.5).attention_maps(features, IDS) is None  # type: ignore[attr-defined]
