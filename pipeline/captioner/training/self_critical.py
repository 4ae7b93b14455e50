"""Self-critical training: make captions with a high reward more likely, others less likely.

Rennie et al. (2017), "Self-critical sequence training for image captioning", with the mean of
a photo's other samples as the baseline (Kool et al. 2019, "Buy 4 REINFORCE samples, get a
baseline for free!"). The reward is CIDEr-D against the training captions.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.generation.interfaces import Hypothesis
from pipeline.captioner.generation.sampling import Sampling, sample
from pipeline.captioner.training.batches import Ids, teacher_forcing
from pipeline.captioner.training.fit import Phase
from pipeline.captioner.training.history import SelfCriticalEpoch
from pipeline.captioner.training.loss import LossModel
from pipeline.captioner.training.optimizer import OptimizerConfig
from pipeline.captioner.training.tracing import trace_network
from pipeline.features.store import FeatureStore
from pipeline.metrics.cider import CiderD
from pipeline.metrics.tokenizer import tokenize
from pipeline.text.vocabulary import END, PAD, START, Vocabulary


class SelfCritical(Phase):
    """Maximizes the CIDEr-D of captions sampled from the decoder."""

    row_type = SelfCriticalEpoch
    metric_name = "reward"
    note = (
        "the reward is the CIDEr-D of sampled captions, which is lower than that of searched ones; "
    )
    learning_rate_param = "self_critical.learning_rate"
    unit = "photos"

    def __init__(
        self,
        decoder: Decoder,
        store: FeatureStore,
        vocabulary: Vocabulary,
        image_ids: Sequence[str],
        reward: CiderD,
        *,
        samples: int,
        batch_size: int,
        learning_rate: float,
        max_words: int,
        seed: int,
    ) -> None:
        """Compile the decoder's network for training.

        Args:
            decoder: already trained with cross-entropy; its weights are changed in place.
            store: the photos' features.
            vocabulary: the decoder's vocabulary.
            image_ids: the training photos.
            reward: scores captions of these photos, in this order.
            samples: captions sampled for each photo, 2 or more.
            batch_size: photos in a batch.
            learning_rate: learning rate of Adam.
            max_words: maximum number of words of a caption.
            seed: seed of the photos' order and of the samples.
        """
        self._decoder, self._store, self._vocabulary = decoder, store, vocabulary
        self._image_ids, self._reward = image_ids, reward
        self.size = len(image_ids)
        self._samples, self._batch_size = samples, batch_size
        self._max_words, self._seed = max_words, seed
        self.optimizer = OptimizerConfig(learning_rate).build(steps=0)
        # The gradient of the expected reward is that of the distribution that the samples are
        # drawn from, and they are drawn without dropout.
        self._model = LossModel(decoder, self.optimizer, dropout=False)
        self.optimizer.build(decoder.network.trainable_variables)

    def trace(self) -> None:
        """Trace the training step."""
        trace_network(self._decoder, self._model.train_on_batch)

    def train_epoch(self, epoch: int) -> float:
        """Sample captions for every photo once and train on them.

        Returns:
            Their mean CIDEr-D, x100; each batch is scored before its training step.
        """
        random = np.random.default_rng([self._seed, epoch])
        rewards = [self._train_step(photos, random) for photos in self._shuffled(random)]
        return float(np.concatenate(rewards).mean())

    def _shuffled(self, random: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
        """Yield batches of positions in `image_ids`."""
        order = random.permutation(len(self._image_ids))
        for start in range(0, len(order), self._batch_size):
            yield order[start : start + self._batch_size]

    def _train_step(
        self, photos: npt.NDArray[np.int64], random: np.random.Generator
    ) -> npt.NDArray[np.float64]:
        """Sample captions and train on them; return their rewards, (photos, samples)."""
        features = self._store.sample_views([self._image_ids[photo] for photo in photos], random)
        sampling = Sampling(seed=int(random.integers(2**32)))
        samples = sample(self._decoder, features, self._samples, self._max_words, sampling)
        captions = [caption for photo_samples in samples for caption in photo_samples]
        tokens = [tokenize(self._vocabulary.decode(caption.ids)) for caption in captions]
        scores = self._reward.scores(tokens, np.repeat(photos, self._samples))
        rewards: npt.NDArray[np.float64] = scores.reshape(len(photos), self._samples)
        inputs, targets = teacher_forcing([_to_sequence(caption) for caption in captions])
        mask = targets != PAD
        caption_weights = advantages(rewards).ravel()[:, None] / 100
        self._model.train_on_batch(
            [np.repeat(features, self._samples, axis=0), inputs],
            targets,
            # The loss is a mean over all words; a negative weight lowers a caption's probability.
            sample_weight=(caption_weights * mask / mask.sum()).astype(np.float32),
        )
        self.advance(len(photos))
        return rewards


def advantages(rewards: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the difference of each reward to the mean of the photo's other samples.

    Args:
        rewards: (photos, samples).
    """
    count = rewards.shape[1]
    # Leaving a sample out of the mean moves the mean away from the sample by this factor.
    scale = count / (count - 1)
    result: npt.NDArray[np.float64] = scale * (rewards - rewards.mean(axis=1, keepdims=True))
    return result


def _to_sequence(caption: Hypothesis) -> Ids:
    return np.array([START, *caption.ids, *([END] if caption.finished else [])], np.int32)
