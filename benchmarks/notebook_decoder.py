"""The merge decoder as the notebook trains and asks it, to compare with.

A photo a step: its captions expanded to prefixes, padded on the left, the next words one-hot; one
vector leaves the LSTM, with Keras' own layers throughout. A word a `predict` to caption.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.backend import keras
from pipeline.text.vocabulary import END, START

_UNITS = 256
_DROPOUT = 0.5
_LEARNING_RATE = 1e-3  # Adam's own, as the notebook leaves it
_SEED = 1


class NotebookDecoder:
    """A network and the photos that teach it."""

    def __init__(
        self,
        features: npt.NDArray[np.float32],
        sequences: Sequence[Sequence[Sequence[int]]],
        words: int,
        max_words: int,
    ) -> None:
        """Build the network.

        Args:
            features: (N, D), of the photos.
            sequences: for each photo its captions' ids, <start> and <end> included.
            words: in the vocabulary, <pad> among them.
            max_words: that prefixes are padded to.
        """
        self._features, self._sequences = features, sequences
        self._words, self._max_words = words, max_words
        keras.utils.set_random_seed(_SEED)
        layers = keras.layers
        vector, ids = keras.Input((features.shape[1],)), keras.Input((max_words,), dtype="int32")
        image = layers.Dense(_UNITS, activation="relu")(layers.Dropout(_DROPOUT)(vector))
        prefix = layers.Embedding(words, _UNITS, mask_zero=True)(ids)
        told = layers.LSTM(_UNITS)(layers.Dropout(_DROPOUT)(prefix))
        joined = layers.Dense(_UNITS, activation="relu")(layers.Add()([image, told]))
        share = layers.Dense(words, activation="softmax")(joined)
        self._network = keras.Model([vector, ids], share)
        self._network.compile(keras.optimizers.Adam(_LEARNING_RATE), "categorical_crossentropy")

    def train_epoch(self, photos: range) -> None:
        """Take one step for each photo."""
        for photo in photos:
            self._network.train_on_batch(*self._expanded(photo))

    def loss(self, photos: range) -> float:
        """Return the mean loss of a word, of prefixes padded as it learned them."""
        losses, words = [], []
        for photo in photos:
            inputs, one_hot = self._expanded(photo)
            losses.append(float(self._network.test_on_batch(inputs, one_hot)))
            words.append(len(one_hot))
        return float(np.average(losses, weights=words))

    def search(self, photos: range) -> None:
        """Caption photos one by one, word by word."""
        for photo in photos:
            ids = [START]
            while len(ids) <= self._max_words and ids[-1] != END:
                given = [self._features[photo][None], self._padded([ids])]
                ids.append(int(self._network.predict(given, verbose=0).argmax()))

    def _expanded(self, photo: int) -> tuple[list[Any], Any]:
        captions = self._sequences[photo]
        prefixes = [ids[:end] for ids in captions for end in range(1, len(ids))]
        following = [word for ids in captions for word in ids[1:]]
        repeated = np.repeat(self._features[photo][None], len(prefixes), axis=0)
        one_hot = keras.utils.to_categorical(following, self._words)
        return [repeated, self._padded(prefixes)], one_hot

    def _padded(self, prefixes: list[Sequence[int]]) -> Any:
        return keras.utils.pad_sequences(prefixes, self._max_words)
