import numpy as np
import pytest

from pipeline.backend import keras
from pipeline.captioner.decoders.decoder import Decoder
from pipeline.errors import InputError
from pipeline.text.vocabulary import START
from tests.support.captioner import logits_of, make_decided_decoder, make_decoder, vectors

IDS = np.array([[START, 4, 5, 6], [START, 9, 7, 4]], np.int32)
GRID = (4, 6)


def decided() -> Decoder:
    return make_decided_decoder(feature_shape=GRID, name="attention")


def maps_of(
    decoder: Decoder, features: object
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    found = decoder.graphs.maps([features, IDS], training=False)
    return np.asarray(keras.ops.convert_to_numpy(found))


def test_each_word_has_a_map_that_sums_to_one_over_the_places() -> None:
    maps = maps_of(decided(), vectors(GRID, 2))
    assert maps.shape == (2, 4, 4)
    np.testing.assert_allclose(maps.sum(axis=-1), 1, atol=1e-5)
    # Where it looks depends on the words so far.
    assert np.abs(maps[:, 1] - maps[:, 2]).max() > 0.01


def test_places_in_another_order_are_looked_at_in_that_order() -> None:
    decoder, features = decided(), vectors(GRID, 2)
    turned = np.ascontiguousarray(features[:, ::-1])
    np.testing.assert_allclose(
        maps_of(decoder, turned), maps_of(decoder, features)[..., ::-1], atol=1e-4
    )
    np.testing.assert_allclose(
        logits_of(decoder, turned, IDS), logits_of(decoder, features, IDS), atol=1e-3
    )


def test_what_is_looked_at_decides_the_words() -> None:
    decoder, features = decided(), vectors(GRID, 2)
    looked = maps_of(decoder, features)[0].max(axis=0)
    most, least = features.copy(), features.copy()
    most[0, looked.argmax()] = 0
    least[0, looked.argmin()] = 0
    before = logits_of(decoder, features, IDS)[0]
    changes = [np.abs(logits_of(decoder, f, IDS)[0] - before).max() for f in (most, least)]
    assert changes[0] > changes[1]


def test_pooled_features_have_no_places() -> None:
    with pytest.raises(
        InputError, match=r"looks at places.*set extract\.pooling .* to quarters or grid"
    ):
        make_decoder(name="attention")


def test_decoders_that_do_not_look_have_no_maps() -> None:
    assert make_decoder(name="merge").graphs.maps is None


def test_an_unknown_decoder_is_named_and_those_there_are() -> None:
    words = r"no decoder 'gru': set train\.decoder .* to one of merge, init_inject, .*attention"
    with pytest.raises(InputError, match=words):
        make_decoder(name="gru")
