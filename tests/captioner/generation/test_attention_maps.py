from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.backend import keras
from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.generation import attention_maps
from pipeline.captioner.generation.attention_maps import AttentionMap, compute_attention_maps
from pipeline.captioner.generation.ensemble import Ensemble
from pipeline.text.vocabulary import PAD, START
from tests.support.captioner import make_peaked_decoder, vectors

GRID = (4, 6)
CAPTIONS = [(4, 5, 6), (7,), (), (9, 8, 7, 6, 5), (4, 5, 6), (5, 5), (6,), (4, 9, 5)]


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return make_peaked_decoder(feature_shape=GRID, name="attention")


def compute_maps(decoder: Any, captions: Any = CAPTIONS) -> list[AttentionMap]:
    results = compute_attention_maps(decoder, vectors(GRID, len(captions)), captions)
    maps = [result for result in results if result is not None]
    assert len(maps) == len(results) == len(captions)
    return maps


class Recorder:
    """A decoder whose weights depend on the words so far, and which records its input shapes."""

    def __init__(self) -> None:
        self.shapes: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()

    def attention_maps(
        self, features: npt.NDArray[np.float32], ids: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.float32]:
        self.shapes.add((features.shape, ids.shape))
        maps: npt.NDArray[np.float32] = np.exp(features[:, None, :, 0] * (1 + ids[..., None] % 3))
        return maps


def test_each_word_has_a_weight_per_position_and_the_largest_is_255(decoder: Decoder) -> None:
    maps = compute_maps(decoder)
    for words, caption_map in zip(CAPTIONS, maps, strict=True):
        assert caption_map.shape == (len(words), 4)
        assert caption_map.dtype == np.uint8
        assert (caption_map.max(axis=1) == 255).all()
    assert any(caption_map.min() < 50 for caption_map in maps if caption_map.size)


def test_maps_are_the_network_s_weights_relative_to_the_word_s_largest(decoder: Decoder) -> None:
    features = vectors(GRID, len(CAPTIONS))
    for row, (words, caption_map) in enumerate(zip(CAPTIONS, compute_maps(decoder), strict=True)):
        ids = np.array([[START, *words]], np.int32)
        output = decoder.graphs.maps([features[row][None], ids], training=False)
        (weights,) = np.asarray(keras.ops.convert_to_numpy(output))[:, : len(words)]
        expected = 255 * weights / weights.max(axis=1, keepdims=True)
        np.testing.assert_allclose(caption_map, expected, atol=0.51)


def test_the_map_of_a_word_depends_on_the_words_before_it_only(decoder: Decoder) -> None:
    features = np.repeat(vectors(GRID, 1), 2, axis=0)
    first, second = compute_attention_maps(decoder, features, [(4, 5, 6), (4, 9, 6)])
    assert first is not None
    assert second is not None
    assert np.array_equal(first[:2], second[:2])
    assert not np.array_equal(first[2], second[2])


@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
def test_captions_are_processed_in_batches_of_one_shape(
    monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    expected, recorder = compute_maps(Recorder()), Recorder()
    monkeypatch.setattr(attention_maps, "_BATCH_SIZE", batch_size)
    for caption_map, expected_map in zip(compute_maps(recorder), expected, strict=True):
        assert np.array_equal(caption_map, expected_map)
    size = min(batch_size, len(CAPTIONS))
    assert recorder.shapes == {((size, *GRID), (size, 5))}


def test_an_ensemble_returns_the_mean_of_its_members_weights(decoder: Decoder) -> None:
    other = make_peaked_decoder(feature_shape=GRID, seed=2, name="attention")
    features, ids = vectors(GRID, 2), np.array([[START, 4], [START, PAD]], np.int32)
    mean = Ensemble([decoder, other]).attention_maps(features, ids)
    first, second = decoder.attention_maps(features, ids), other.attention_maps(features, ids)
    assert mean is not None
    assert first is not None
    assert second is not None
    assert not np.allclose(first, second)
    np.testing.assert_allclose(mean, (first + second) / 2, rtol=1e-6)
    assert Ensemble([make_peaked_decoder()]).attention_maps(vectors((6,), 2), ids) is None


def test_empty_captions_have_empty_maps_and_no_captions_have_none(decoder: Decoder) -> None:
    maps = compute_maps(decoder, [(), ()])
    assert [caption_map.shape for caption_map in maps] == [(0, 4), (0, 4)]
    assert compute_attention_maps(decoder, vectors(GRID, 0), []) == []


def test_decoders_without_attention_have_no_maps(decoder: Decoder) -> None:
    captions = [(4, 5), (6,)]
    pooled = vectors((6,), 2)
    assert compute_attention_maps(make_peaked_decoder(), pooled, captions) == [None, None]

    class WithoutMaps:
        begin, advance = decoder.begin, decoder.advance

    assert compute_attention_maps(WithoutMaps(), vectors(GRID, 2), captions) == [None, None]
