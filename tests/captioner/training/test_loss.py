from pathlib import Path

import numpy as np
import pytest

from pipeline.backend import keras
from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.training.batches import Batch
from pipeline.captioner.training.loss import (
    LossModel,
    mean_loss,
    mean_over_words,
)
from pipeline.text.vocabulary import PAD
from tests.support.captioner import (
    CAPTIONS,
    add_to_logit,
    log_softmax,
    make_batches,
    make_peaked_decoder,
    make_store,
    sequence_logits,
)


@pytest.fixture
def decoder() -> Decoder:
    return make_peaked_decoder()


def batch_of(folder: Path) -> Batch:
    """Return all captions in one batch, with padding."""
    (batch,) = make_batches(make_store(folder / "features.h5"), CAPTIONS, 64).eval_batches()
    assert 0.2 < (batch.targets == PAD).mean() < 0.8
    return batch


def expected_loss(decoder: Decoder, batch: Batch, smoothing: float) -> float:
    """Compute the loss word by word, with explicit smoothed target distributions."""
    scores = log_softmax(sequence_logits(decoder, batch.features, batch.inputs))
    size = scores.shape[-1]
    losses = []
    for row, targets in zip(scores, batch.targets, strict=True):
        for log_probs, word in zip(row, targets, strict=True):
            if word != PAD:
                target = np.full(size, smoothing / size)
                target[word] += 1 - smoothing
                losses.append(-float(target @ log_probs))
    assert len(losses) == batch.word_count
    return float(np.mean(losses))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_the_loss_is_that_of_the_formula_without_padding(
    tmp_path: Path, decoder: Decoder, smoothing: float
) -> None:
    batch = batch_of(tmp_path)
    model = LossModel(decoder, label_smoothing=smoothing)
    loss = model.test_on_batch([batch.features, batch.inputs], batch.targets)
    assert float(loss) == pytest.approx(expected_loss(decoder, batch, smoothing), rel=1e-5)


@pytest.mark.parametrize("tied", [False, True], ids=["own", "tied"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_training_step_is_that_of_keras_own_loss(
    tmp_path: Path, smoothing: float, tied: bool
) -> None:
    batch = batch_of(tmp_path)
    initial, ours, theirs = (
        make_peaked_decoder(dropout=0.0, tied_embeddings=tied) for _ in range(3)
    )
    inputs = [batch.features, batch.inputs]
    model = LossModel(ours, keras.optimizers.SGD(1.0), smoothing)
    loss = model.train_on_batch(inputs, batch.targets)
    keras_loss = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=smoothing, reduction="sum"
    )
    theirs.network.compile(keras.optimizers.SGD(1.0), keras_loss)
    targets = np.eye(ours.config.vocabulary_size, dtype=np.float32)[batch.targets]
    weights = (batch.targets != PAD) / np.float32(batch.word_count)
    keras_result = theirs.network.train_on_batch(inputs, targets, sample_weight=weights)
    assert float(loss) == pytest.approx(float(keras_result), rel=1e-5)
    decoders = initial, ours, theirs
    for before, a, b in zip(*(d.network.get_weights() for d in decoders), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        assert not np.allclose(before, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_words_without_probability_is_that_of_the_formula(
    tmp_path: Path, decoder: Decoder, smoothing: float
) -> None:
    batch = batch_of(tmp_path)
    add_to_logit(decoder, int(batch.targets[0, 0]) + 1, 1000.0)
    model = LossModel(decoder, label_smoothing=smoothing)
    loss = model.test_on_batch([batch.features, batch.inputs], batch.targets)
    assert float(loss) == pytest.approx(expected_loss(decoder, batch, smoothing), rel=1e-5)
    assert float(loss) > 500


def test_the_evaluation_loss_is_not_smoothed_and_the_training_loss_stays(
    tmp_path: Path, decoder: Decoder
) -> None:
    batch = batch_of(tmp_path)
    network = decoder.network
    model = LossModel(decoder, "adam", 0.3)
    optimizer = model.optimizer
    plain, smooth = (expected_loss(decoder, batch, smoothing) for smoothing in (0.0, 0.3))
    assert abs(plain - smooth) > 0.1
    batches = make_batches(make_store(tmp_path / "features.h5"), CAPTIONS, 64)
    assert mean_loss(decoder, batches) == pytest.approx(plain, rel=1e-5)
    eval_model = LossModel(decoder)
    inputs = [batch.features, batch.inputs]
    assert float(eval_model.test_on_batch(inputs, batch.targets)) == pytest.approx(plain, rel=1e-5)
    assert float(model.test_on_batch(inputs, batch.targets)) == pytest.approx(smooth, rel=1e-5)
    assert model.optimizer is optimizer
    # The evaluation model shares the weights.
    network.set_weights([0 * weight for weight in network.get_weights()])
    uniform = np.log(decoder.config.vocabulary_size)
    assert float(eval_model.test_on_batch(inputs, batch.targets)) == pytest.approx(
        uniform, rel=1e-5
    )


def test_batches_are_weighted_by_their_number_of_words(tmp_path: Path) -> None:
    batches = list(make_batches(make_store(tmp_path / "features.h5"), CAPTIONS, 4).eval_batches())
    words = [batch.word_count for batch in batches]
    assert len(set(words)) > 1
    losses = iter([1.0, 2.0, 6.0])
    expected = np.average([1.0, 2.0, 6.0], weights=words)
    assert mean_over_words(lambda *_: next(losses), batches) == pytest.approx(expected)
