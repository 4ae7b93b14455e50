from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.training.batches import Batch, Batches, Ids
from pipeline.captioner.training.cross_entropy import CrossEntropy
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

# Of two lengths, so that there is padding.
TEXTS = ["a big dog runs on grass", "a cat sleeps"]
MANY = [(image_id, text) for image_id in PHOTOS for text in TEXTS] * 8
SEED = 5


class Taught:
    """What a network is given to learn from; it learns nothing."""

    def __init__(self, network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[tuple[Ids, Ids]] = []
        monkeypatch.setattr(network, "train_on_batch", self._take)

    def _take(self, given: list[Any], targets: Ids) -> float:
        self.batches.append((given[1], targets))
        return 1.0


@pytest.fixture
def captions(tmp_path: Path) -> Batches:
    return make_batches(make_store(tmp_path / "features.h5"), MANY, batch_size=len(MANY))


@pytest.fixture
def decoder() -> Decoder:
    """Return one that would say <end> everywhere, which is nowhere among the true words."""
    decoder = make_decoder()
    add_to_logit(decoder, END, 100.0)
    return decoder


def inputs_of(
    decoder: Decoder,
    captions: Batches,
    epoch: int,
    monkeypatch: pytest.MonkeyPatch,
    share: float = 0.5,
) -> tuple[Ids, Batch]:
    """Return the inputs that an epoch of one batch learns from, and the batch itself."""
    phase = CrossEntropy(
        decoder, captions, OptimizerConfig(0.001), 20, SEED, scheduled_sampling=share
    )
    taught = Taught(decoder.network, monkeypatch)
    assert phase.train_epoch(epoch) == 1.0
    (true,) = captions.shuffled(SEED, epoch)
    ((inputs, targets),) = taught.batches
    np.testing.assert_array_equal(targets, true.targets)
    return inputs, true


@pytest.mark.parametrize(("epoch", "share"), [(1, 0.0), (6, 0.25), (11, 0.5), (15, 0.5)])
def test_words_are_replaced_more_and_more(
    decoder: Decoder,
    captions: Batches,
    monkeypatch: pytest.MonkeyPatch,
    epoch: int,
    share: float,
) -> None:
    inputs, true = inputs_of(decoder, captions, epoch, monkeypatch)
    words = (true.inputs != PAD) & (true.inputs != START)
    assert words.sum() > 400
    assert (inputs[words] == END).mean() == pytest.approx(share, abs=0.08)
    assert (epoch == 1) == np.array_equal(inputs, true.inputs)
    # <start> and padding stay, and so does each word that is not replaced.
    np.testing.assert_array_equal(inputs[~words], true.inputs[~words])
    kept = inputs != END
    np.testing.assert_array_equal(inputs[kept], true.inputs[kept])


def test_markers_are_never_the_decoders_own_words(
    decoder: Decoder, captions: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    for marker in (PAD, START):
        add_to_logit(decoder, marker, 1000.0)
    inputs, true = inputs_of(decoder, captions, 11, monkeypatch)
    np.testing.assert_array_equal(inputs == PAD, true.inputs == PAD)
    np.testing.assert_array_equal(inputs == START, true.inputs == START)
    assert (inputs == END).any()


def test_draws_follow_from_seed_and_epoch(
    captions: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = make_decoder()
    first, again = (inputs_of(decoder, captions, 11, monkeypatch)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other, _ = inputs_of(decoder, captions, 12, monkeypatch)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("norm", ["none", "center"])
def test_some_captions_are_learned_beside_a_photo_that_tells_nothing(
    captions: Batches, monkeypatch: pytest.MonkeyPatch, norm: str
) -> None:
    decoder = make_peaked_decoder(feature_norm=norm)
    phase = CrossEntropy(
        decoder, captions, OptimizerConfig(0.001), 20, SEED, condition_dropout=0.25
    )
    taught: list[Any] = []

    def train_epoch(given: list[Any], _: Ids) -> float:
        taught.append(given[0])
        return 1.0

    monkeypatch.setattr(decoder.network, "train_on_batch", train_epoch)
    for epoch in (1, 1, 2):
        phase.train_epoch(epoch)
    (true,) = captions.shuffled(SEED, 1)
    without = (taught[0] == decoder.null_features).all(axis=1)
    assert without.mean() == pytest.approx(0.25, abs=0.1)
    np.testing.assert_array_equal(taught[0][~without], true.features[~without])
    np.testing.assert_array_equal(taught[0], taught[1])
    assert ((taught[2] == decoder.null_features).all(axis=1) != without).any()
    assert decoder.null_features.any() == (norm == "center")


def test_own_words_are_those_that_the_decoder_would_have_said_there(
    captions: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a drawn word the likeliest alone: the one that the true word before it is followed by.
    decoder = make_decoder()
    follows = np.array([(3 * word + 4) % decoder.config.vocabulary_size for word in range(99)])

    def predict(given: list[Any]) -> Any:
        size = decoder.config.vocabulary_size
        return 1000.0 * np.eye(size, dtype=np.float32)[follows[given[1]]]

    monkeypatch.setattr(decoder.network, "predict_on_batch", predict)
    inputs, true = inputs_of(decoder, captions, 11, monkeypatch, share=0.9)
    said = follows[true.inputs[:, :-1]]
    could = ~np.isin(said, [PAD, START]) & (true.inputs[:, 1:] != PAD)
    own = inputs[:, 1:] != true.inputs[:, 1:]
    assert (own & could).sum() > 200
    np.testing.assert_array_equal(inputs[:, 1:][own & could], said[own & could])
