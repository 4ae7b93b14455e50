"""Initial weights from the training data: mean features, word frequencies, word vectors."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.training.batches import Ids
from pipeline.text.vocabulary import PAD, START

_WINDOW = 4  # context words on either side
_CONTEXT_SMOOTHING = 0.75
_OVERSAMPLING, _POWER_ITERATIONS = 10, 2
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
    rows, columns, counts = _cooccurrences(sequences, vocabulary_size)
    totals = np.bincount(rows, counts, vocabulary_size)
    contexts = totals**_CONTEXT_SMOOTHING
    expected = totals[rows] * contexts[columns] / max(contexts.sum(), 1.0)
    information = np.log(np.maximum(counts / expected, 1.0))
    left, singular_values = _top_singular_vectors(
        _SparseMatrix(rows, columns, information, vocabulary_size), min(size, vocabulary_size)
    )
    vectors = np.zeros((vocabulary_size, size), np.float32)
    vectors[:, : len(singular_values)] = left * np.sqrt(singular_values)
    # Around 0, not around their mean: that depends on the arbitrary signs of singular vectors.
    deviation = float(np.sqrt(np.square(vectors).mean()))
    return vectors * (_STANDARD_DEVIATION / deviation) if deviation else vectors


def _cooccurrences(
    sequences: Iterable[Ids], vocabulary_size: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Return rows, columns and values of the symmetric matrix of weighted cooccurrences."""
    ids = np.concatenate([np.zeros(0, np.int64), *(_padded(sequence) for sequence in sequences)])
    keys, weights = [], []
    for distance in range(1, _WINDOW + 1):
        pairs = ids[distance:], ids[:-distance]
        inside = (pairs[0] >= 0) & (pairs[1] >= 0)
        first, second = pairs[0][inside], pairs[1][inside]
        keys += [first * vocabulary_size + second, second * vocabulary_size + first]
        weights += [np.full(len(first), 1 / distance)] * 2
    cells, position = np.unique(np.concatenate(keys), return_inverse=True)
    counts = np.bincount(position, np.concatenate(weights), len(cells))
    rows, columns = np.divmod(cells, vocabulary_size)
    return rows, columns, counts


def _padded(sequence: Ids) -> npt.NDArray[np.int64]:
    """Return ids with as many -1 after them as keep words of two captions apart."""
    return np.concatenate([sequence.astype(np.int64), np.full(_WINDOW, -1)])


@dataclass(frozen=True)
class _SparseMatrix:
    """A square matrix, of which only the cells that are not 0 are in memory, ordered by row."""

    rows: npt.NDArray[Any]
    columns: npt.NDArray[Any]
    values: npt.NDArray[Any]
    size: int

    def transposed(self) -> "_SparseMatrix":
        order = np.argsort(self.columns, kind="stable")
        return _SparseMatrix(self.columns[order], self.rows[order], self.values[order], self.size)

    def __matmul__(self, matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Multiply by a dense matrix (size, K), row by row: each is a small product of BLAS."""
        product = np.zeros((self.size, matrix.shape[1]))
        ends = np.searchsorted(self.rows, np.arange(self.size + 1)).tolist()
        for row, (start, end) in enumerate(pairwise(ends)):
            product[row] = self.values[start:end] @ matrix[self.columns[start:end]]
        return product


def _top_singular_vectors(
    matrix: _SparseMatrix, count: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the first left singular vectors (size, count), and their singular values (count,).

    Randomized, with power iterations: Halko, Martinsson and Tropp (2011), "Finding structure with
    randomness", algorithms 4.4 and 5.1. Exact if `count` is nearly the matrix' size; the time
    grows with the cells and the size, not with its third power.
    """
    transposed = matrix.transposed()
    width = min(count + _OVERSAMPLING, matrix.size)
    basis, _ = np.linalg.qr(matrix @ np.random.default_rng(0).normal(size=(matrix.size, width)))
    for _ in range(_POWER_ITERATIONS):
        row_basis, _ = np.linalg.qr(transposed @ basis)
        basis, _ = np.linalg.qr(matrix @ row_basis)
    _, triangle = np.linalg.qr(transposed @ basis)  # has the same singular values
    left, singular_values, _ = np.linalg.svd(triangle.T)
    return (basis @ left)[:, :count], singular_values[:count]
