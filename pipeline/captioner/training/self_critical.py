"""Self-critical training: captions that score well are made likelier, bad ones less likely.

Rennie et al. (2017), "Self-critical sequence training for image captioning", with the mean of
a photo's other samples as the baseline (Kool et al. 2019, "Buy 4 REINFORCE samples, get a
baseline for free!"), rewarded by CIDEr-D against the training captions.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from pipeline.backend import JIT_COMPILE, keras
from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.generation.interfaces import Hypothesis
from pipeline.captioner.generation.sampling import Sampling, sample
from pipeline.captioner.training.batches import Ids, teacher_forcing
from pipeline.captioner.training.fit import Phase
from pipeline.captioner.training.history import SelfCriticalEpoch
from pipeline.features.store import FeatureStore
from pipeline.metrics.cider import CiderD
from pipeline.metrics.tokenizer import tokenize
from pipeline.text.vocabulary import END, PAD, START, Vocabulary


class SelfCritical(Phase):
    """Raises the CIDEr-D of captions drawn from the decoder, from cached features."""

    row_type = SelfCriticalEpoch
    metric_name = "reward"
    learning_rate_param = "self_critical.learning_rate"

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
        """Make the decoder ready to train.

        Args:
            decoder: trained; its weights are changed in place.
            store: features of the photos.
            vocabulary: of the decoder.
            image_ids: the training photos.
            reward: scores captions of these photos, in this order.
            samples: captions drawn of a photo, 2 or more.
            batch_size: photos a step.
            learning_rate: of Adam.
            max_words: a caption's words, at most.
            seed: of the photos' order and of the draws.
        """
        self._decoder, self._store, self._vocabulary = decoder, store, vocabulary
        self._image_ids, self._reward = image_ids, reward
        self._samples, self._batch_size = samples, batch_size
        self._max_words, self._seed = max_words, seed
        network = decoder.network
        self._learner = keras.Model(network.inputs, network.outputs, name=network.name)
        self.optimizer = keras.optimizers.Adam(learning_rate)
        self._learner.compile(
            optimizer=self.optimizer,
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"),
            jit_compile=JIT_COMPILE,
        )
        self.optimizer.build(self._learner.trainable_variables)

    def train_epoch(self, epoch: int) -> float:
        """Draw captions of every photo once and learn from them.

        Returns:
            Their mean CIDEr-D, x100, before each step.
        """
        random = np.random.default_rng([self._seed, epoch])
        rewards = [self._step(photos, random) for photos in self._batches(random)]
        return float(np.concatenate(rewards).mean())

    def _batches(self, random: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
        order = random.permutation(len(self._image_ids))
        for start in range(0, len(order), self._batch_size):
            yield order[start : start + self._batch_size]

    def _step(
        self, photos: npt.NDArray[np.int64], random: np.random.Generator
    ) -> npt.NDArray[np.float64]:
        """Draw captions, learn from them; return their rewards, (photos, samples)."""
        features = self._store.sample_views([self._image_ids[photo] for photo in photos], random)
        sampling = Sampling(seed=int(random.integers(2**32)))
        drawn = sample(self._decoder, features, self._samples, self._max_words, sampling)
        captions = [caption for of_photo in drawn for caption in of_photo]
        tokens = [tokenize(self._vocabulary.decode(caption.ids)) for caption in captions]
        scores = self._reward.scores(tokens, np.repeat(photos, self._samples))
        rewards: npt.NDArray[np.float64] = scores.reshape(len(photos), self._samples)
        inputs, targets = teacher_forcing([_sequence(caption) for caption in captions])
        words = targets != PAD
        better = advantages(rewards).ravel()[:, None] / 100
        self._learner.train_on_batch(
            [np.repeat(features, self._samples, axis=0), inputs],
            targets,
            # The mean over all words, of which those of good captions pull one way.
            sample_weight=(better * words / words.sum()).astype(np.float32),
        )
        return rewards


def advantages(rewards: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return how much better than the mean of its photo's other samples each one is.

    Args:
        rewards: (photos, samples).
    """
    count = rewards.shape[1]
    # The mean of the others is farther away than that of all.
    farther = count / (count - 1)
    found: npt.NDArray[np.float64] = farther * (rewards - rewards.mean(axis=1, keepdims=True))
    return found


def _sequence(caption: Hypothesis) -> Ids:
    return np.array([START, *caption.ids, *([END] if caption.finished else [])], np.int32)
