"""Initial weights from the training data: mean features, word frequencies, word vectors."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.training.batches import Ids
from pipeline.text.vocabulary import PAD, START

_WINDOW = 4  # context words on either side
_CONTEXT_SMOOTHING = 0.75
# Standard deviation of Keras' own initial embeddings, which are uniform in [-0.05, 0.05].
_STANDARD_DEVIATION = 0.05 / 3**0.5


def set_feature_mean(decoder: Decoder, features: Iterable[npt.NDArray[np.float32]]) -> None:
    """Set the mean that the decoder subtracts from features to that of the training photos.

    The mean of all photos carries no information, and dropout would turn it into noise.

    Args:
        decoder: untrained, with `feature_norm` "center".
        features: features of all training photos, in chunks (n, D) or (n, P, D).
    """
    total, count = np.zeros(decoder.config.feature_shape[-1]), 0
    for chunk in features:
        total += chunk.sum(axis=tuple(range(chunk.ndim - 1)), dtype=np.float64)
        count += chunk.size // len(total)
    decoder.network.get_layer("feature_norm").mean.assign(total / count)


def set_output_bias(decoder: Decoder, counts: npt.NDArray[np.int64]) -> None:
    """Set the bias of the logits to the words' log frequencies.

    Karpathy and Fei-Fei (2015), "Deep visual-semantic alignments for generating image
    descriptions", section 3.1.3.

    Args:
        decoder: untrained.
        counts: (V,), how often each id is a target.
    """
    smoothed = counts + 1.0
    smoothed[[PAD, START]] = 0.1
    layer = decoder.network.get_layer("logits")
    layer.bias.assign(np.log(smoothed / smoothed.sum()).astype(np.float32))


def set_word_vectors(decoder: Decoder, sequences: Iterable[Ids]) -> None:
    """Set the word embeddings so that words with similar neighbours have similar vectors.

    Args:
        decoder: untrained.
        sequences: the captions' ids with <start> and <end>.
    """
    config = decoder.config
    vectors = word_vectors(sequences, config.vocabulary_size, config.embedding_size)
    decoder.network.get_layer("embedding").set_weights([vectors])


def word_vectors(
    sequences: Iterable[Ids], vocabulary_size: int, size: int
) -> npt.NDArray[np.float32]:
    """Return a vector for each id, (vocabulary_size, size), from the words around it.

    The singular vectors of the positive pointwise mutual information matrix; closer words
    count more (Levy, Goldberg and Dagan 2015, "Improving distributional similarity").
    """
    cooccurrences = np.zeros((vocabulary_size, vocabulary_size))
    for ids in sequences:
        for distance in range(1, _WINDOW + 1):
            np.add.at(cooccurrences, (ids[distance:], ids[:-distance]), 1 / distance)
    cooccurrences += cooccurrences.T
    totals = cooccurrences.sum(axis=1)
    contexts = totals**_CONTEXT_SMOOTHING
    expected = np.outer(totals, contexts / max(contexts.sum(), 1.0))
    ratios = np.divide(
        cooccurrences, expected, out=np.ones_like(cooccurrences), where=cooccurrences > 0
    )
    left, singular_values, _ = np.linalg.svd(np.log(np.maximum(ratios, 1.0)))
    vectors = np.zeros((vocabulary_size, size), np.float32)
    rank = min(size, vocabulary_size)
    vectors[:, :rank] = left[:, :rank] * np.sqrt(singular_values[:rank])
    # Around 0, not around their mean: that depends on the arbitrary signs of singular vectors.
    deviation = float(np.sqrt(np.square(vectors).mean()))
    return vectors * (_STANDARD_DEVIATION / deviation) if deviation else vectors
