"""The merge decoder as the original notebook trains and runs it, for comparison.

One photo per training step: its captions expanded to prefixes, padded on the left, with one-hot
next words. The LSTM returns its last state only, and all layers are Keras' own. To caption, one
`predict` per word.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.backend import keras
from pipeline.text.vocabulary import END, START

_UNITS = 256
_DROPOUT = 0.5
_LEARNING_RATE = 1e-3  # Adam's default, as in the notebook
_SEED = 1


class NotebookDecoder:
    """A network and the photos that it is trained on."""

    def __init__(
        self,
        features: npt.NDArray[np.float32],
        sequences: Sequence[Sequence[Sequence[int]]],
        vocabulary_size: int,
        max_words: int,
    ) -> None:
        """Build the network.

        Args:
            features: (N, D), of the photos.
            sequences: for each photo its captions' ids, <start> and <end> included.
            vocabulary_size: number of words, <pad> included.
            max_words: length to which prefixes are padded.
        """
        self._features, self._sequences = features, sequences
        self._vocabulary_size, self._max_words = vocabulary_size, max_words
        keras.utils.set_random_seed(_SEED)
        layers = keras.layers
        vector, ids = keras.Input((features.shape[1],)), keras.Input((max_words,), dtype="int32")
        image = layers.Dense(_UNITS, activation="relu")(layers.Dropout(_DROPOUT)(vector))
        embedded = layers.Embedding(vocabulary_size, _UNITS, mask_zero=True)(ids)
        prefix = layers.LSTM(_UNITS)(layers.Dropout(_DROPOUT)(embedded))
        merged = layers.Dense(_UNITS, activation="relu")(layers.Add()([image, prefix]))
        probabilities = layers.Dense(vocabulary_size, activation="softmax")(merged)
        self._network = keras.Model([vector, ids], probabilities)
        self._network.compile(keras.optimizers.Adam(_LEARNING_RATE), "categorical_crossentropy")

    def train_epoch(self, photos: range) -> None:
        """Take one step per photo."""
        for photo in photos:
            self._network.train_on_batch(*self._expand_prefixes(photo))

    def mean_loss(self, photos: range) -> float:
        """Return the mean loss per word, with prefixes padded as in training."""
        losses, n_words = [], []
        for photo in photos:
            inputs, one_hot = self._expand_prefixes(photo)
            losses.append(float(self._network.test_on_batch(inputs, one_hot)))
            n_words.append(len(one_hot))
        return float(np.average(losses, weights=n_words))

    def caption_photos(self, photos: range) -> None:
        """Caption photos greedily, photo by photo and word by word."""
        for photo in photos:
            ids = [START]
            while len(ids) <= self._max_words and ids[-1] != END:
                inputs = [self._features[photo][None], self._pad([ids])]
                ids.append(int(self._network.predict(inputs, verbose=0).argmax()))

    def _expand_prefixes(self, photo: int) -> tuple[list[Any], Any]:
        captions = self._sequences[photo]
        prefixes = [ids[:end] for ids in captions for end in range(1, len(ids))]
        next_words = [word for ids in captions for word in ids[1:]]
        repeated = np.repeat(self._features[photo][None], len(prefixes), axis=0)
        one_hot = keras.utils.to_categorical(next_words, self._vocabulary_size)
        return [repeated, self._pad(prefixes)], one_hot

    def _pad(self, prefixes: list[Sequence[int]]) -> Any:
        return keras.utils.pad_sequences(prefixes, self._max_words)
