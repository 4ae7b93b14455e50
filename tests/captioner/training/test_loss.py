from pathlib import Path

import numpy as np
import pytest

from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.training import loss
from pipeline.captioner.training.batches import Batch
from pipeline.captioner.training.loss import compile_network, mean_loss, mean_of
from pipeline.text.vocabulary import PAD
from tests.support.captioner import (
    CAPTIONS,
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
    """Return all captions in one batch, a good part of which is padding."""
    (batch,) = make_batches(make_store(folder / "features.h5"), CAPTIONS, 64).in_order()
    assert 0.2 < (batch.targets == PAD).mean() < 0.8
    return batch


def smoothed(decoder: Decoder, batch: Batch, share: float) -> float:
    """Compute the loss word by word: part of the target is every word of the vocabulary."""
    scores = log_softmax(sequence_logits(decoder, batch.features, batch.inputs))
    size = scores.shape[-1]
    losses = []
    for row, targets in zip(scores, batch.targets, strict=True):
        for told, word in zip(row, targets, strict=True):
            if word != PAD:
                target = np.full(size, share / size)
                target[word] += 1 - share
                losses.append(-float(target @ told))
    assert len(losses) == batch.words
    return float(np.mean(losses))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_it_is_that_of_the_formula_without_padding(
    tmp_path: Path, decoder: Decoder, share: float
) -> None:
    batch = batch_of(tmp_path)
    compile_network(decoder.network, "sgd", share)
    found = decoder.network.test_on_batch([batch.features, batch.inputs], batch.targets)
    assert float(found) == pytest.approx(smoothed(decoder, batch, share), rel=1e-5)


def test_what_is_validated_is_not_smoothed_and_leaves_training_as_it_is(
    tmp_path: Path, decoder: Decoder
) -> None:
    batch = batch_of(tmp_path)
    network = decoder.network
    compile_network(network, "adam", 0.3)
    optimizer = network.optimizer
    plain, smooth = smoothed(decoder, batch, 0.0), smoothed(decoder, batch, 0.3)
    assert abs(plain - smooth) > 0.1
    batches = make_batches(make_store(tmp_path / "features.h5"), CAPTIONS, 64)
    assert mean_loss(decoder, batches) == pytest.approx(plain, rel=1e-5)
    tested = loss.build_eval_model(decoder)
    given = [batch.features, batch.inputs]
    assert float(tested.test_on_batch(given, batch.targets)) == pytest.approx(plain, rel=1e-5)
    assert float(network.test_on_batch(given, batch.targets)) == pytest.approx(smooth, rel=1e-5)
    assert network.optimizer is optimizer
    # What is tested are the weights as they come to be.
    network.set_weights([0 * weight for weight in network.get_weights()])
    uniform = np.log(decoder.config.vocabulary_size)
    assert float(tested.test_on_batch(given, batch.targets)) == pytest.approx(uniform, rel=1e-5)


def test_a_batch_weighs_as_much_as_it_has_words(tmp_path: Path) -> None:
    batches = list(make_batches(make_store(tmp_path / "features.h5"), CAPTIONS, 4).in_order())
    words = [batch.words for batch in batches]
    assert len(set(words)) > 1
    losses = iter([1.0, 2.0, 6.0])
    expected = np.average([1.0, 2.0, 6.0], weights=words)
    assert mean_of(lambda *_: next(losses), batches) == pytest.approx(expected)
