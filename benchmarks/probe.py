"""A linear probe (Alain and Bengio 2016): how well features predict the words of captions.

It needs no language model and takes seconds, so that encoders, input sizes and views can be
compared before a decoder is trained: `python -m benchmarks probe`. Only training photos are used,
by cross-validation, and smaller subsets of them show how much more photos would help. The ridge
alpha is the best of six over the same folds, one for all words.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.harness import Row
from pipeline.datasets.caption_table import read_caption_table
from pipeline.features.store import FeatureStore
from pipeline.metrics.tokenizer import tokenize

_FOLDS = 10
_MIN_PHOTOS = 10  # with a word
_ALPHAS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # times the mean squared norm of the features
_SUBSETS = (8, 4, 2, 1)  # the training photos are divided by these

Array = npt.NDArray[np.float64]


def run(artifacts: Path) -> list[Row]:
    """Return a row for each subset of the training photos, or one row if they are too few."""
    table = read_caption_table(artifacts / "captions.parquet")
    store = FeatureStore.open(artifacts / "features.h5")
    references = table.references("train")
    image_ids = [image_id for image_id in references if image_id in store.rows]
    features = store.read(image_ids).astype(np.float64)
    if len(store.shape) > 1:  # several places: use their mean
        features = features.mean(axis=1)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    shares = word_shares([references[image_id] for image_id in image_ids])
    n_train = len(image_ids) * (_FOLDS - 1) // _FOLDS
    counts = [n_train // divisor for divisor in _SUBSETS if n_train // divisor >= _MIN_PHOTOS]
    if not counts or not shares.shape[1]:
        return [Row("words predicted from features", f"none: fewer than {_MIN_PHOTOS} photos")]
    return [_make_row(features, shares, count) for count in counts]


def word_shares(references: Sequence[Sequence[str]]) -> Array:
    """Return the share of each photo's captions that contain a word, (photos, words)."""
    captions = [[set(tokenize(text)) for text in texts] for texts in references]
    document_frequency = Counter(word for sets in captions for word in set().union(*sets))
    words = sorted(word for word, count in document_frequency.items() if count >= _MIN_PHOTOS)
    return np.array(
        [[np.mean([word in caption for caption in sets]) for word in words] for sets in captions]
    )


def cross_validate(features: Array, shares: Array, count: int, alpha: float) -> Array:
    """Predict every photo's word shares by ridge regression on `count` photos of other folds."""
    order = np.random.default_rng(0).permutation(len(features))
    predictions = np.zeros_like(shares)
    for fold in range(_FOLDS):
        test = order[fold::_FOLDS]
        train = np.setdiff1d(order, test, assume_unique=True)[:count]
        feature_mean, share_mean = features[train].mean(axis=0), shares[train].mean(axis=0)
        centered = features[train] - feature_mean
        gram = centered @ centered.T
        ridge = alpha * np.trace(gram) / count * np.eye(count)
        weights = np.linalg.solve(gram + ridge, shares[train] - share_mean)
        predictions[test] = (features[test] - feature_mean) @ centered.T @ weights + share_mean
    return predictions


def explained_variance(shares: Array, predictions: Array) -> float:
    """Return the share of the words' variance that predictions explain; 1 at best."""
    residual = ((predictions - shares) ** 2).sum()
    return 1 - float(residual / ((shares - shares.mean(axis=0)) ** 2).sum())


def mean_average_precision(shares: Array, predictions: Array) -> float:
    """Return how well predictions rank the photos that have a word, averaged over words."""
    precisions = []
    for relevant, scores in zip(shares.T > 0, predictions.T, strict=True):
        ranked = relevant[np.argsort(-scores, kind="stable")]
        precisions.append((np.cumsum(ranked) / np.arange(1, len(ranked) + 1))[ranked].mean())
    return float(np.mean(precisions))


def _make_row(features: Array, shares: Array, count: int) -> Row:
    candidates = (cross_validate(features, shares, count, alpha) for alpha in _ALPHAS)
    best = max(candidates, key=lambda predictions: explained_variance(shares, predictions))
    return Row(
        f"{shares.shape[1]} words predicted from the features of {count} photos",
        f"{explained_variance(shares, best):.1%} of their variance, "
        f"mean average precision {mean_average_precision(shares, best):.1%}",
    )
