"""Teacher forcing: each word is learned from the true words before it (Williams, Zipser 1989)."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.training.batches import Batch, Batches
from pipeline.captioner.training.fit import Phase
from pipeline.captioner.training.history import Epoch
from pipeline.captioner.training.loss import compile_network, mean_of
from pipeline.captioner.training.optimizer import OptimizerConfig
from pipeline.text.vocabulary import PAD, START

_RAMP = 10  # epochs until scheduled sampling has its full share


class CrossEntropy(Phase):
    """Lowers the loss of captions' words, in whole sequences."""

    row_type = Epoch
    metric_name = "loss"
    learning_rate_param = "train.learning_rate"

    def __init__(
        self,
        decoder: Decoder,
        captions: Batches,
        optimization: OptimizerConfig,
        epochs: int,
        seed: int,
        *,
        label_smoothing: float = 0.0,
        condition_dropout: float = 0.0,
        scheduled_sampling: float = 0.0,
    ) -> None:
        """Make the decoder ready to learn.

        Args:
            decoder: its weights are changed in place.
            captions: to learn from.
            optimization: how.
            epochs: at most, for the schedule of the learning rate.
            seed: of the batches' order.
            label_smoothing: see `compile_network`.
            condition_dropout: the share of captions learned beside a photo that tells nothing (Ho and
                Salimans 2022), which is what guidance asks of.
            scheduled_sampling: the share of the words before that are the decoder's own
                (Bengio et al. 2015), drawn beside the true ones in a first pass (Mihaylova and
                Martins 2019, "Scheduled sampling for transformers"); it is reached slowly.
        """
        self._decoder, self._network = decoder, decoder.network
        self.captions, self._seed = captions, seed
        self._photo_dropout, self._own_words = condition_dropout, scheduled_sampling
        optimizer = optimization.build(epochs * len(captions))
        compile_network(self._network, optimizer, label_smoothing)
        optimizer.build(self._network.trainable_variables)
        self.optimizer = optimizer

    def train_epoch(self, epoch: int) -> float:
        """Learn every caption once; return the mean loss of a word."""
        batches = self.captions.shuffled(self._seed, epoch)
        if self._photo_dropout:
            dice, null_features = (
                np.random.default_rng([self._seed, epoch, 2]),
                self._decoder.null_features,
            )
            batches = (self._without_photos(batch, null_features, dice) for batch in batches)
        share = self._own_words * min(1.0, (epoch - 1) / _RAMP)
        if share:
            random = np.random.default_rng([self._seed, epoch, 1])
            batches = (self._with_own_words(batch, share, random) for batch in batches)
        return mean_of(self._network.train_on_batch, batches)

    def _without_photos(
        self, batch: Batch, null_features: npt.NDArray[np.float32], random: np.random.Generator
    ) -> Batch:
        """Replace some photos, in place, by one that tells nothing."""
        features = batch.features
        features[random.random(len(features)) < self._photo_dropout] = null_features
        return batch

    def _with_own_words(self, batch: Batch, share: float, random: np.random.Generator) -> Batch:
        """Replace some inputs by what the decoder would have said there."""
        logits = np.array(self._network.predict_on_batch([batch.features, batch.inputs]))
        logits[..., [PAD, START]] = -np.inf
        # The greatest after Gumbel noise is a draw from the softmax.
        said = (logits + random.gumbel(size=logits.shape)).argmax(axis=-1).astype(np.int32)
        own = (random.random(batch.inputs.shape) < share) & (batch.inputs != PAD)
        own[:, 0] = False  # <start> is given
        before = np.roll(said, 1, axis=1)
        return replace(batch, inputs=np.where(own, before, batch.inputs))
