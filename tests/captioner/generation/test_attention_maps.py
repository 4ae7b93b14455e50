from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.backend import keras
from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.generation import attention_maps
from pipeline.captioner.generation.attention_maps import Map, caption_maps
from pipeline.captioner.generation.ensemble import Ensemble
from pipeline.text.vocabulary import PAD, START
from tests.support.captioner import make_decided_decoder, vectors

GRID = (4, 6)
CAPTIONS = [(4, 5, 6), (7,), (), (9, 8, 7, 6, 5), (4, 5, 6), (5, 5), (6,), (4, 9, 5)]


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return make_decided_decoder(feature_shape=GRID, name="attention")


def found(decoder: Any, captions: Any = CAPTIONS) -> list[Map]:
    results = caption_maps(decoder, vectors(GRID, len(captions)), captions)
    there = [result for result in results if result is not None]
    assert len(there) == len(results) == len(captions)
    return there


class Recorder:
    """Looks at what tells of the words so far, and keeps the shapes it was asked for."""

    def __init__(self) -> None:
        self.shapes: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()

    def attention_maps(
        self, features: npt.NDArray[np.float32], ids: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.float32]:
        self.shapes.add((features.shape, ids.shape))
        shares: npt.NDArray[np.float32] = np.exp(features[:, None, :, 0] * (1 + ids[..., None] % 3))
        return shares


def test_each_word_has_its_places_and_its_greatest_is_255(decoder: Decoder) -> None:
    for words, of_words in zip(CAPTIONS, found(decoder), strict=True):
        assert of_words.shape == (len(words), 4)
        assert of_words.dtype == np.uint8
        assert (of_words.max(axis=1) == 255).all()
    assert any(of_words.min() < 50 for of_words in found(decoder) if of_words.size)


def test_they_are_the_network_s_shares_by_the_word_s_greatest(decoder: Decoder) -> None:
    features = vectors(GRID, len(CAPTIONS))
    for row, (words, of_words) in enumerate(zip(CAPTIONS, found(decoder), strict=True)):
        ids = np.array([[START, *words]], np.int32)
        output = decoder.graphs.maps([features[row][None], ids], training=False)
        (shares,) = np.asarray(keras.ops.convert_to_numpy(output))[:, : len(words)]
        expected = 255 * shares / shares.max(axis=1, keepdims=True)
        np.testing.assert_allclose(of_words, expected, atol=0.51)


def test_a_word_s_map_is_of_before_it_was_said(decoder: Decoder) -> None:
    features = np.repeat(vectors(GRID, 1), 2, axis=0)
    one, other = caption_maps(decoder, features, [(4, 5, 6), (4, 9, 6)])
    assert one is not None
    assert other is not None
    assert np.array_equal(one[:2], other[:2])
    assert not np.array_equal(one[2], other[2])


@pytest.mark.parametrize("photos", [1, 3, 8, 100])
def test_photos_are_looked_at_in_parts_of_one_shape(
    monkeypatch: pytest.MonkeyPatch, photos: int
) -> None:
    whole, recorder = found(Recorder()), Recorder()
    monkeypatch.setattr(attention_maps, "_PHOTOS", photos)
    for one, other in zip(found(recorder), whole, strict=True):
        assert np.array_equal(one, other)
    size = min(photos, len(CAPTIONS))
    assert recorder.shapes == {((size, *GRID), (size, 5))}


def test_several_decoders_look_where_they_do_on_average(decoder: Decoder) -> None:
    other = make_decided_decoder(feature_shape=GRID, seed=2, name="attention")
    features, ids = vectors(GRID, 2), np.array([[START, 4], [START, PAD]], np.int32)
    shares = Ensemble([decoder, other]).attention_maps(features, ids)
    first, second = decoder.attention_maps(features, ids), other.attention_maps(features, ids)
    assert shares is not None
    assert first is not None
    assert second is not None
    assert not np.allclose(first, second)
    np.testing.assert_allclose(shares, (first + second) / 2, rtol=1e-6)
    assert Ensemble([make_decided_decoder()]).attention_maps(vectors((6,), 2), ids) is None


def test_without_words_or_captions_there_is_nothing(decoder: Decoder) -> None:
    assert [of_words.shape for of_words in found(decoder, [(), ()])] == [(0, 4), (0, 4)]
    assert caption_maps(decoder, vectors(GRID, 0), []) == []


def test_those_that_do_not_look_at_places_have_none(decoder: Decoder) -> None:
    pooled = vectors((6,), 2)
    assert caption_maps(make_decided_decoder(), pooled, [(4, 5), (6,)]) == [None, None]

    class StepDecoder:
        begin, advance = decoder.begin, decoder.advance

    assert caption_maps(StepDecoder(), vectors(GRID, 2), [(4, 5), (6,)]) == [None, None]
