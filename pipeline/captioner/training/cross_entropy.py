"""Cross-entropy with teacher forcing: predict each word from the true words before it.

Williams and Zipser (1989), "A learning algorithm for continually running fully recurrent neural
networks".
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.training.batches import Batch, Batches
from pipeline.captioner.training.fit import Phase
from pipeline.captioner.training.history import CrossEntropyEpoch
from pipeline.captioner.training.loss import LossModel, mean_over_words
from pipeline.captioner.training.optimizer import OptimizerConfig
from pipeline.captioner.training.tracing import trace_network
from pipeline.text.vocabulary import PAD, START

_RAMP_EPOCHS = 10  # epochs until scheduled sampling reaches its full rate


class CrossEntropy(Phase):
    """Minimizes the negative log-likelihood of the training captions' words."""

    row_type = CrossEntropyEpoch
    metric_name = "loss"
    note = "the training loss counts dropout and label smoothing, the validation loss does not; "
    learning_rate_param = "train.learning_rate"
    unit = "captions"

    def __init__(
        self,
        decoder: Decoder,
        batches: Batches,
        optimizer: OptimizerConfig,
        epochs: int,
        seed: int,
        *,
        label_smoothing: float = 0.0,
        condition_dropout: float = 0.0,
        scheduled_sampling: float = 0.0,
    ) -> None:
        """Compile the decoder's network for training.

        Args:
            decoder: the decoder to train; its weights are changed in place.
            batches: the training captions.
            optimizer: the optimizer's settings.
            epochs: maximum number of epochs, for the learning rate schedule.
            seed: seed of the batches' order and of all draws.
            label_smoothing: see `LossModel`.
            condition_dropout: probability that a caption is trained with null features instead
                of its photo's. Classifier-free guidance needs a decoder trained this way (Ho
                and Salimans 2022).
            scheduled_sampling: probability that an input word is one that the decoder itself
                predicts (Bengio et al. 2015), sampled for all positions in a first pass over
                the true words (Mihaylova and Martins 2019, "Scheduled sampling for
                transformers"). The probability rises linearly over the first epochs.
        """
        self._decoder = decoder
        self.batches, self._seed = batches, seed
        self.size = len(batches.sequences)
        self._condition_dropout = condition_dropout
        self._scheduled_sampling = scheduled_sampling
        self.optimizer = optimizer.build(epochs * len(batches))
        self._model = LossModel(decoder, self.optimizer, label_smoothing)
        self.optimizer.build(decoder.network.trainable_variables)

    def trace(self) -> None:
        """Trace the training step and, for scheduled sampling, the predictions."""
        trace_network(self._decoder, lambda x, y, _: self._model.train_on_batch(x, y))
        if self._scheduled_sampling:
            network = self._decoder.network
            trace_network(self._decoder, lambda x, *_: network.predict_on_batch(x))

    def train_epoch(self, epoch: int) -> float:
        """Train on every caption once; return the mean loss of a word."""
        batches = self.batches.train_batches(self._seed, epoch)
        if self._condition_dropout:
            dropout_random = np.random.default_rng([self._seed, epoch, 2])
            batches = (self._drop_conditions(batch, dropout_random) for batch in batches)
        rate = self._scheduled_sampling * min(1.0, (epoch - 1) / _RAMP_EPOCHS)
        if rate:
            sampling_random = np.random.default_rng([self._seed, epoch, 1])
            batches = (self._sample_inputs(batch, rate, sampling_random) for batch in batches)
        return mean_over_words(self._model.train_on_batch, self._counted(batches))

    def _counted(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        for batch in batches:
            yield batch
            self.advance(len(batch.inputs))

    def _drop_conditions(self, batch: Batch, random: np.random.Generator) -> Batch:
        """Replace the features of some photos, in place, with null features."""
        features = batch.features
        dropped = random.random(len(features)) < self._condition_dropout
        features[dropped] = self._decoder.null_features
        return batch

    def _sample_inputs(self, batch: Batch, rate: float, random: np.random.Generator) -> Batch:
        """Replace some input words with words sampled from the decoder's predictions."""
        network = self._decoder.network
        logits = np.array(network.predict_on_batch([batch.features, batch.inputs]))
        logits[..., [PAD, START]] = -np.inf
        # The argmax of logits with Gumbel noise is a sample from their softmax.
        samples = (logits + random.gumbel(size=logits.shape)).argmax(axis=-1).astype(np.int32)
        replaced = (random.random(batch.inputs.shape) < rate) & (batch.inputs != PAD)
        replaced[:, 0] = False  # <start> is always given
        # The prediction at one position is the input at the next.
        sampled_inputs = np.roll(samples, 1, axis=1)
        return replace(batch, inputs=np.where(replaced, sampled_inputs, batch.inputs))
