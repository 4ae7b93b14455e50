"""Initial weights from what is to be learned: its photos' mean, its words' use and neighbours."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.training.batches import Ids
from pipeline.text.vocabulary import PAD, START

_WINDOW = 4  # words to either side
_SMOOTHING = 0.75
# Deviation of Keras' own initial vectors, which are uniform between -.05 and .05.
_DEVIATION = 0.05 / 3**0.5


def set_feature_mean(decoder: Decoder, vectors: Iterable[npt.NDArray[np.float32]]) -> None:
    """Let the decoder see how photos differ from the mean photo, not how they are alike.

    What is the same for all tells nothing, and, once dropout takes a part of it, is noise.

    Args:
        decoder: untrained, its `feature_norm` "center".
        vectors: of all photos to learn from, (n, D) or (n, P, D) at a time.
    """
    total, count = np.zeros(decoder.config.feature_shape[-1]), 0
    for each in vectors:
        total += each.sum(axis=tuple(range(each.ndim - 1)), dtype=np.float64)
        count += each.size // len(total)
    decoder.network.get_layer("feature_norm").mean.assign(total / count)


def set_output_bias(decoder: Decoder, counts: npt.NDArray[np.int64]) -> None:
    """Let the decoder begin with how frequent words are (Karpathy and Fei-Fei 2015, 3.1.3).

    Args:
        decoder: untrained.
        counts: (V,) of each id, as a word to tell.
    """
    seen = counts + 1.0
    seen[[PAD, START]] = 0.1
    layer = decoder.network.get_layer("logits")
    layer.bias.assign(np.log(seen / seen.sum()).astype(np.float32))


def set_word_vectors(decoder: Decoder, sequences: Iterable[Ids]) -> None:
    """Let the decoder begin with like vectors for words of like neighbours.

    Args:
        decoder: untrained.
        sequences: of ids, <start> and <end> included.
    """
    config = decoder.config
    vectors = word_vectors(sequences, config.vocabulary_size, config.embedding_size)
    decoder.network.get_layer("embedding").set_weights([vectors])


def word_vectors(
    sequences: Iterable[Ids], vocabulary_size: int, size: int
) -> npt.NDArray[np.float32]:
    """Return a vector for each id, (vocabulary_size, size), from the words around it.

    The singular vectors of positive pointwise mutual information, nearer words counting
    more (Levy, Goldberg and Dagan 2015, "Improving distributional similarity").
    """
    together = np.zeros((vocabulary_size, vocabulary_size))
    for ids in sequences:
        for apart in range(1, _WINDOW + 1):
            np.add.at(together, (ids[apart:], ids[:-apart]), 1 / apart)
    together += together.T
    total = together.sum(axis=1)
    context = total**_SMOOTHING
    expected = np.outer(total, context / max(context.sum(), 1.0))
    ratio = np.divide(together, expected, out=np.ones_like(together), where=together > 0)
    left, strength, _ = np.linalg.svd(np.log(np.maximum(ratio, 1.0)))
    vectors = np.zeros((vocabulary_size, size), np.float32)
    kept = min(size, vocabulary_size)
    vectors[:, :kept] = left[:, :kept] * np.sqrt(strength[:kept])
    # About 0, not about their mean, which hangs on the signs that the decomposition happens on.
    deviation = float(np.sqrt(np.square(vectors).mean()))
    return vectors * (_DEVIATION / deviation) if deviation else vectors
