import numpy as np
import pytest

from pipeline.captioner.decoders.decoder import DECODERS
from pipeline.captioner.generation.guidance import with_guidance
from pipeline.text.vocabulary import START
from tests.support.captioner import make_peaked_decoder, step_logits, vectors

IDS = np.array([[START, 4, 5, 6], [START, 9, 7, 4]], np.int32)


@pytest.mark.parametrize("norm", ["none", "center", "l2"])
@pytest.mark.parametrize("name", list(DECODERS))
def test_guidance_adds_a_part_of_the_difference_to_unconditional_logits(
    name: str, norm: str
) -> None:
    shape = (4, 6)
    decoder = make_peaked_decoder(
        name=name, feature_shape=shape, feature_norm=norm, spatial_residual_size=2
    )
    features = vectors(shape)[:2]
    null_features = np.zeros_like(features) + decoder.null_features
    assert decoder.null_features.any() == (norm == "center")
    conditional = step_logits(decoder, features, IDS)
    unconditional = step_logits(decoder, null_features, IDS)
    assert np.abs(conditional - unconditional).max() > 0.1
    # Without a photo, both rows predict the same after the same word.
    np.testing.assert_array_equal(unconditional[0, 0], unconditional[1, 0])
    expected = conditional + 0.5 * (conditional - unconditional)
    guided = step_logits(with_guidance(decoder, 0.5), features, IDS)
    np.testing.assert_allclose(guided, expected, atol=1e-3)


def test_guidance_works_with_pooled_features_too() -> None:
    decoder = make_peaked_decoder()
    features = vectors()[:2]
    conditional = step_logits(decoder, features, IDS)
    unconditional = step_logits(decoder, np.zeros_like(features), IDS)
    guided = step_logits(with_guidance(decoder, 0.5), features, IDS)
    np.testing.assert_allclose(guided, 1.5 * conditional - 0.5 * unconditional, atol=1e-3)


def test_a_weight_of_0_returns_the_decoder_itself() -> None:
    decoder = make_peaked_decoder()
    assert with_guidance(decoder, 0.0) is decoder


def test_attention_maps_are_those_of_the_decoder_with_the_photo() -> None:
    features = vectors((4, 6))[:2]
    attention = make_peaked_decoder(name="attention", feature_shape=(4, 6))
    maps = with_guidance(attention, 0.5).attention_maps(features, IDS)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(maps, attention.attention_maps(features, IDS))
    merge = make_peaked_decoder(feature_shape=(4, 6))
    assert with_guidance(merge, 0.5).attention_maps(features, IDS) is None  # type: ignore[attr-defined]
