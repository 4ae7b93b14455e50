from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.captioner.decoders.decoder import Decoder, build_decoder
from pipeline.captioner.model_config import DecoderConfig
from pipeline.captioner.training.batches import Ids
from pipeline.captioner.training.initialization import (
    set_output_bias,
    set_word_vectors,
    word_vectors,
)
from pipeline.text.vocabulary import END, PAD, START, UNK
from tests.support.captioner import CAPTIONS, make_vocabulary, sequence_logits, vectors

VOCABULARY = make_vocabulary()
SIZE = len(VOCABULARY)
DEVIATION = 0.05 / 3**0.5


def sequences(texts: list[str]) -> list[Ids]:
    return [np.array([START, *VOCABULARY.encode(text), END], np.int32) for text in texts]


def build(*, tied: bool) -> Decoder:
    return build_decoder(
        DecoderConfig("init_inject", SIZE, (6,), 8, 8, 0.0, 0.0, tied_embeddings=tied)
    )


# How frequent words are.


@pytest.mark.parametrize("tied", [False, True])
def test_with_all_else_zero_words_are_as_likely_as_they_are_frequent(tied: bool) -> None:
    decoder = build(tied=tied)
    decoder.network.set_weights([0 * weight for weight in decoder.network.get_weights()])
    counts = np.random.default_rng(0).integers(1000, 9000, SIZE)
    counts[[PAD, START, 7]] = 0
    set_output_bias(decoder, counts)
    logits = sequence_logits(decoder, vectors()[:2], [[START, 4, 5], [START, 9, 6]])
    shares = np.exp(logits)
    np.testing.assert_allclose(shares.sum(axis=-1), 1, atol=1e-5)
    expected = np.broadcast_to(counts / counts.sum(), shares.shape)
    np.testing.assert_allclose(shares, expected, atol=1e-4)
    # Even a word that is never told is likelier than what is no word.
    assert (shares[..., [PAD, START]] < shares[..., [7]] / 2).all()
    assert np.isfinite(logits).all()


# Which words stand together.


def cosines(found: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    length = np.linalg.norm(found, axis=1, keepdims=True)
    unit = found / np.where(length > 0, length, 1)
    found_cosines: npt.NDArray[Any] = unit @ unit.T
    return found_cosines


def test_words_of_equal_neighbours_have_vectors_that_are_alike() -> None:
    texts = [f"a {animal} {does}" for animal in ("dog", "cat") for does in ("runs", "sleeps")]
    found = word_vectors(sequences([*texts, "two big bed", "grass on bed"]), SIZE, 6)
    ids = VOCABULARY.ids
    words = ["dog", "cat", "runs", "sleeps", "a", "two", "big", "grass", "on", "bed"]
    near = cosines(found[[ids[word] for word in words]])
    for one, other in ((0, 1), (1, 0), (2, 3), (3, 2)):
        assert near[one, other] > 0.99
        assert np.delete(near[one], [one, other]).max() < 0.95


def test_vectors_have_the_deviation_of_keras_own() -> None:
    found = word_vectors(sequences([text for _, text in CAPTIONS]), SIZE, 6)
    assert found.shape == (SIZE, 6)
    assert found.dtype == np.float32
    assert np.sqrt(np.square(found).mean()) == pytest.approx(DEVIATION, rel=1e-4)


def test_vectors_longer_than_the_vocabulary_end_with_zeros() -> None:
    found = word_vectors(sequences([text for _, text in CAPTIONS]), SIZE, SIZE + 5)
    assert found.shape == (SIZE, SIZE + 5)
    assert (found[:, SIZE:] == 0).all()
    assert found[:, :SIZE].any()
    assert np.sqrt(np.square(found).mean()) == pytest.approx(DEVIATION, rel=1e-4)


def test_vectors_follow_from_the_captions_alone() -> None:
    texts = [text for _, text in CAPTIONS]
    found = word_vectors(sequences(texts), SIZE, 6)
    np.testing.assert_array_equal(found, word_vectors(sequences(texts), SIZE, 6))
    assert not np.allclose(found, word_vectors(sequences(texts[:5]), SIZE, 6), atol=1e-3)
    # In another order they point elsewhere, at most, but lie the same.
    whole, backwards = (word_vectors(sequences(t), SIZE, SIZE) for t in (texts, texts[::-1]))
    np.testing.assert_allclose(whole @ whole.T, backwards @ backwards.T, atol=1e-7)


def test_what_no_caption_has_has_no_vector() -> None:
    found = word_vectors(sequences(["a dog"]), SIZE, 4)
    told = [START, END, VOCABULARY.ids["a"], VOCABULARY.ids["dog"]]
    silent = [word for word in range(SIZE) if word not in told]
    assert UNK in silent
    np.testing.assert_allclose(found[silent], 0, atol=1e-6)
    assert not word_vectors([], SIZE, 4).any()


@pytest.mark.parametrize("tied", [False, True])
def test_a_decoder_begins_with_them(tied: bool) -> None:
    decoder = build(tied=tied)
    before = decoder.network.get_weights()
    told = sequences([text for _, text in CAPTIONS])
    set_word_vectors(decoder, told)
    after = decoder.network.get_weights()
    changed = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert sum(changed) == 1
    (vectors_set,) = (weight for weight, is_new in zip(after, changed, strict=True) if is_new)
    np.testing.assert_array_equal(vectors_set, word_vectors(told, SIZE, 8))
    assert np.isfinite(sequence_logits(decoder, vectors()[:1], [[START, 4]])).all()
