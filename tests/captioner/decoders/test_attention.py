import numpy as np
import pytest

from pipeline.backend import keras
from pipeline.captioner.decoders.decoder import Decoder
from pipeline.errors import InputError
from pipeline.text.vocabulary import START
from tests.support.captioner import make_decoder, make_peaked_decoder, sequence_logits, vectors

IDS = np.array([[START, 4, 5, 6], [START, 9, 7, 4]], np.int32)
GRID = (4, 6)


def make_attention_decoder() -> Decoder:
    return make_peaked_decoder(feature_shape=GRID, name="attention")


def attention_maps(
    decoder: Decoder, features: object
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    maps = decoder.graphs.maps([features, IDS], training=False)
    return np.asarray(keras.ops.convert_to_numpy(maps))


def test_each_word_has_a_map_that_sums_to_one_over_the_positions() -> None:
    maps = attention_maps(make_attention_decoder(), vectors(GRID, 2))
    assert maps.shape == (2, 4, 4)
    np.testing.assert_allclose(maps.sum(axis=-1), 1, atol=1e-5)
    # The weights depend on the words so far.
    assert np.abs(maps[:, 1] - maps[:, 2]).max() > 0.01


def test_permuted_positions_permute_the_maps_and_change_no_logits() -> None:
    decoder, features = make_attention_decoder(), vectors(GRID, 2)
    reversed_places = np.ascontiguousarray(features[:, ::-1])
    np.testing.assert_allclose(
        attention_maps(decoder, reversed_places),
        attention_maps(decoder, features)[..., ::-1],
        atol=1e-4,
    )
    np.testing.assert_allclose(
        sequence_logits(decoder, reversed_places, IDS),
        sequence_logits(decoder, features, IDS),
        atol=1e-3,
    )


def test_the_position_with_the_largest_weight_matters_most_for_the_words() -> None:
    decoder, features = make_attention_decoder(), vectors(GRID, 2)
    weights = attention_maps(decoder, features)[0].max(axis=0)
    without_most, without_least = features.copy(), features.copy()
    without_most[0, weights.argmax()] = 0
    without_least[0, weights.argmin()] = 0
    logits = sequence_logits(decoder, features, IDS)[0]
    changes = [
        np.abs(sequence_logits(decoder, changed, IDS)[0] - logits).max()
        for changed in (without_most, without_least)
    ]
    assert changes[0] > changes[1]


def test_pooled_features_are_refused_since_they_have_one_position() -> None:
    with pytest.raises(
        InputError,
        match=r"needs features of several positions.*set extract\.pooling .* to quarters or grid",
    ):
        make_decoder(name="attention")


def test_decoders_without_attention_have_no_maps() -> None:
    assert make_decoder(name="merge").graphs.maps is None


def test_an_unknown_decoder_is_named_with_the_known_ones() -> None:
    message = r"no decoder 'gru': set train\.decoder .* to one of merge, init_inject, .*attention"
    with pytest.raises(InputError, match=message):
        make_decoder(name="gru")
