from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.training.batches import Batch, Batches, Ids
from pipeline.captioner.training.cross_entropy import CrossEntropy
from pipeline.captioner.training.loss import LossModel
from pipeline.captioner.training.optimizer import OptimizerConfig
from pipeline.text.vocabulary import END, PAD, START
from tests.support.captioner import (
    PHOTOS,
    add_to_logit,
    make_batches,
    make_decoder,
    make_peaked_decoder,
    make_store,
)

# Two lengths, so that there is padding.
TEXTS = ["a big dog runs on grass", "a cat sleeps"]
MANY = [(image_id, text) for image_id in PHOTOS for text in TEXTS] * 8
SEED = 5


class TrainSpy:
    """Records the training batches instead of training on them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.features: list[Any] = []
        self.inputs: list[Ids] = []
        self.targets: list[Ids] = []
        monkeypatch.setattr(LossModel, "train_on_batch", self._record)

    def _record(self, inputs: list[Any], targets: Ids) -> float:
        features, ids = inputs
        self.features.append(features)
        self.inputs.append(ids)
        self.targets.append(targets)
        return 1.0


@pytest.fixture
def batches(tmp_path: Path) -> Batches:
    """Return all captions as a single batch."""
    return make_batches(make_store(tmp_path / "features.h5"), MANY, batch_size=len(MANY))


@pytest.fixture
def decoder() -> Decoder:
    """Return a decoder that always predicts <end>, which no true input has."""
    decoder = make_decoder()
    add_to_logit(decoder, END, 100.0)
    return decoder


def train_one_epoch(
    decoder: Decoder,
    batches: Batches,
    epoch: int,
    monkeypatch: pytest.MonkeyPatch,
    rate: float = 0.5,
) -> tuple[Ids, Batch]:
    """Return the inputs that an epoch trains on, and the batch that they are made from."""
    phase = CrossEntropy(
        decoder, batches, OptimizerConfig(0.001), 20, SEED, scheduled_sampling=rate
    )
    spy = TrainSpy(monkeypatch)
    assert phase.train_epoch(epoch) == 1.0
    (batch,) = batches.train_batches(SEED, epoch)
    (inputs,), (targets,) = spy.inputs, spy.targets
    np.testing.assert_array_equal(targets, batch.targets)
    return inputs, batch


@pytest.mark.parametrize(("epoch", "rate"), [(1, 0.0), (6, 0.25), (11, 0.5), (15, 0.5)])
def test_the_rate_of_scheduled_sampling_rises_over_the_first_epochs(
    decoder: Decoder,
    batches: Batches,
    monkeypatch: pytest.MonkeyPatch,
    epoch: int,
    rate: float,
) -> None:
    inputs, batch = train_one_epoch(decoder, batches, epoch, monkeypatch)
    words = (batch.inputs != PAD) & (batch.inputs != START)
    assert words.sum() > 400
    assert (inputs[words] == END).mean() == pytest.approx(rate, abs=0.08)
    assert (epoch == 1) == np.array_equal(inputs, batch.inputs)
    # <start> and <pad> stay, and so do the words that are not replaced.
    np.testing.assert_array_equal(inputs[~words], batch.inputs[~words])
    not_replaced = inputs != END
    np.testing.assert_array_equal(inputs[not_replaced], batch.inputs[not_replaced])


def test_the_padding_and_start_tokens_are_never_sampled(
    decoder: Decoder, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    for token in (PAD, START):
        add_to_logit(decoder, token, 1000.0)
    inputs, batch = train_one_epoch(decoder, batches, 11, monkeypatch)
    np.testing.assert_array_equal(inputs == PAD, batch.inputs == PAD)
    np.testing.assert_array_equal(inputs == START, batch.inputs == START)
    assert (inputs == END).any()


def test_sampled_words_depend_on_seed_and_epoch_alone(
    batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = make_decoder()
    first, again = (train_one_epoch(decoder, batches, 11, monkeypatch)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other, _ = train_one_epoch(decoder, batches, 12, monkeypatch)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("norm", ["none", "center"])
def test_condition_dropout_replaces_some_photos_with_null_features(
    batches: Batches, monkeypatch: pytest.MonkeyPatch, norm: str
) -> None:
    decoder = make_peaked_decoder(feature_norm=norm)
    phase = CrossEntropy(decoder, batches, OptimizerConfig(0.001), 20, SEED, condition_dropout=0.25)
    spy = TrainSpy(monkeypatch)
    for epoch in (1, 1, 2):
        phase.train_epoch(epoch)
    first, again, second = spy.features
    (batch,) = batches.train_batches(SEED, 1)
    dropped = (first == decoder.null_features).all(axis=1)
    assert dropped.mean() == pytest.approx(0.25, abs=0.1)
    np.testing.assert_array_equal(first[~dropped], batch.features[~dropped])
    np.testing.assert_array_equal(first, again)
    assert ((second == decoder.null_features).all(axis=1) != dropped).any()
    assert decoder.null_features.any() == (norm == "center")


def test_sampled_words_are_the_decoders_predictions_for_their_positions(
    batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The logits leave no choice: each word is followed by one certain word.
    decoder = make_decoder()
    successors = np.array([(3 * word + 4) % decoder.config.vocabulary_size for word in range(99)])

    def predict(inputs: list[Any]) -> Any:
        _, ids = inputs
        size = decoder.config.vocabulary_size
        return 1000.0 * np.eye(size, dtype=np.float32)[successors[ids]]

    monkeypatch.setattr(decoder.network, "predict_on_batch", predict)
    inputs, batch = train_one_epoch(decoder, batches, 11, monkeypatch, rate=0.9)
    predicted = successors[batch.inputs[:, :-1]]
    possible = ~np.isin(predicted, [PAD, START]) & (batch.inputs[:, 1:] != PAD)
    replaced = (inputs[:, 1:] != batch.inputs[:, 1:]) & possible
    assert replaced.sum() > 200
    np.testing.assert_array_equal(inputs[:, 1:][replaced], predicted[replaced])
