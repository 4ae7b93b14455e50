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
STANDARD_DEVIATION = 0.05 / 3**0.5


def sequences(texts: list[str]) -> list[Ids]:
    return [np.array([START, *VOCABULARY.encode(text), END], np.int32) for text in texts]


def build(*, tied: bool) -> Decoder:
    return build_decoder(
        DecoderConfig("init_inject", SIZE, (6,), 8, 8, 0.0, 0.0, tied_embeddings=tied)
    )


# The bias of the logits.


@pytest.mark.parametrize("tied", [False, True])
def test_with_all_other_weights_zero_probabilities_equal_frequencies(tied: bool) -> None:
    decoder = build(tied=tied)
    decoder.network.set_weights([0 * weight for weight in decoder.network.get_weights()])
    counts = np.random.default_rng(0).integers(1000, 9000, SIZE)
    counts[[PAD, START, 7]] = 0
    set_output_bias(decoder, counts)
    logits = sequence_logits(decoder, vectors()[:2], [[START, 4, 5], [START, 9, 6]])
    probabilities = np.exp(logits)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)
    expected = np.broadcast_to(counts / counts.sum(), probabilities.shape)
    np.testing.assert_allclose(probabilities, expected, atol=1e-4)
    # Even a word that is never a target is likelier than a token that cannot be one.
    assert (probabilities[..., [PAD, START]] < probabilities[..., [7]] / 2).all()
    assert np.isfinite(logits).all()


# Word vectors.


def cosines(embeddings: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / np.where(lengths > 0, lengths, 1)
    result: npt.NDArray[Any] = unit @ unit.T
    return result


def test_words_with_equal_neighbours_have_similar_vectors() -> None:
    texts = [f"a {noun} {verb}" for noun in ("dog", "cat") for verb in ("runs", "sleeps")]
    embeddings = word_vectors(sequences([*texts, "two big bed", "grass on bed"]), SIZE, 6)
    ids = VOCABULARY.ids
    words = ["dog", "cat", "runs", "sleeps", "a", "two", "big", "grass", "on", "bed"]
    similarities = cosines(embeddings[[ids[word] for word in words]])
    for one, other in ((0, 1), (1, 0), (2, 3), (3, 2)):
        assert similarities[one, other] > 0.99
        assert np.delete(similarities[one], [one, other]).max() < 0.95


def test_vectors_are_the_singular_vectors_of_the_whole_matrix() -> None:
    random = np.random.default_rng(1)
    drawn = [random.integers(4, 204, random.integers(1, 12)).astype(np.int32) for _ in range(400)]
    counts = np.zeros((204, 204))
    for ids in drawn:
        for i, word in enumerate(ids):
            for distance, other in enumerate(ids[i + 1 : i + 5], 1):
                counts[word, other] += 1 / distance
                counts[other, word] += 1 / distance
    contexts = counts.sum(axis=1) ** 0.75
    expected = np.outer(counts.sum(axis=1), contexts / contexts.sum())
    ratios = np.divide(counts, expected, out=np.ones_like(counts), where=counts > 0)
    information = np.log(np.maximum(ratios, 1))
    left, values, _ = np.linalg.svd(information)
    exact = left * np.sqrt(values)
    exact *= STANDARD_DEVIATION / np.sqrt(np.square(exact).mean())
    embeddings = word_vectors(drawn, 204, 204)
    np.testing.assert_allclose(embeddings @ embeddings.T, exact @ exact.T, atol=1e-6)
    # Few vectors keep nearly as much as the best ones, even of noise, whose values are all alike.
    basis, _ = np.linalg.qr(word_vectors(drawn, 204, 20))
    kept = np.square(basis.T @ information).sum() / np.square(values[:20]).sum()
    assert 0.95 < kept <= 1 + 1e-6


def test_vectors_have_the_standard_deviation_of_keras_own() -> None:
    embeddings = word_vectors(sequences([text for _, text in CAPTIONS]), SIZE, 6)
    assert embeddings.shape == (SIZE, 6)
    assert embeddings.dtype == np.float32
    assert np.sqrt(np.square(embeddings).mean()) == pytest.approx(STANDARD_DEVIATION, rel=1e-4)


def test_vectors_longer_than_the_vocabulary_end_with_zeros() -> None:
    embeddings = word_vectors(sequences([text for _, text in CAPTIONS]), SIZE, SIZE + 5)
    assert embeddings.shape == (SIZE, SIZE + 5)
    assert (embeddings[:, SIZE:] == 0).all()
    assert embeddings[:, :SIZE].any()
    assert np.sqrt(np.square(embeddings).mean()) == pytest.approx(STANDARD_DEVIATION, rel=1e-4)


def test_vectors_depend_on_the_captions_alone() -> None:
    texts = [text for _, text in CAPTIONS]
    embeddings = word_vectors(sequences(texts), SIZE, 6)
    np.testing.assert_array_equal(embeddings, word_vectors(sequences(texts), SIZE, 6))
    assert not np.allclose(embeddings, word_vectors(sequences(texts[:5]), SIZE, 6), atol=1e-3)
    # In another order the vectors may be rotated, but their products are the same.
    forwards, backwards = (word_vectors(sequences(t), SIZE, SIZE) for t in (texts, texts[::-1]))
    np.testing.assert_allclose(forwards @ forwards.T, backwards @ backwards.T, atol=1e-7)


def test_ids_that_no_caption_has_get_zero_vectors() -> None:
    embeddings = word_vectors(sequences(["a dog"]), SIZE, 4)
    used = [START, END, VOCABULARY.ids["a"], VOCABULARY.ids["dog"]]
    unused = [word for word in range(SIZE) if word not in used]
    assert UNK in unused
    np.testing.assert_allclose(embeddings[unused], 0, atol=1e-6)
    assert not word_vectors([], SIZE, 4).any()


@pytest.mark.parametrize("tied", [False, True])
def test_a_decoder_starts_with_these_vectors(tied: bool) -> None:
    decoder = build(tied=tied)
    initial = decoder.network.get_weights()
    captions = sequences([text for _, text in CAPTIONS])
    set_word_vectors(decoder, captions)
    weights = decoder.network.get_weights()
    (embeddings,) = (
        weight
        for weight, old in zip(weights, initial, strict=True)
        if not np.array_equal(weight, old)
    )
    np.testing.assert_array_equal(embeddings, word_vectors(captions, SIZE, 8))
    assert np.isfinite(sequence_logits(decoder, vectors()[:1], [[START, 4]])).all()
