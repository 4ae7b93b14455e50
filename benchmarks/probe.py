"""What a linear probe reads of people's words from the vectors of photos (Alain and Bengio 2016).

It knows no language and takes seconds, so that encoders, input sizes and views can be compared
before a decoder is trained: `python -m benchmarks probe`. The training photos alone are asked,
in folds, and parts of them, for how much more photos would tell. The ridge's penalty is the best
of six over the same folds, for all words alike.
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
_AT_LEAST = 10  # photos that have a word
_PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  # times the mean squared length of the vectors
_PARTS = (8, 4, 2, 1)

Array = npt.NDArray[np.float64]


def rows(artifacts: Path) -> list[Row]:
    """Return a row for each share of the training photos; one that says so, if they are too few."""
    table = read_caption_table(artifacts / "captions.parquet")
    store = FeatureStore.open(artifacts / "features.h5")
    references = table.references("train")
    ids = [image_id for image_id in references if image_id in store.rows]
    vectors = store.read(ids).astype(np.float64)
    if len(store.shape) > 1:  # places: their mean
        vectors = vectors.mean(axis=1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    uses = word_shares([references[image_id] for image_id in ids])
    whole = len(ids) * (_FOLDS - 1) // _FOLDS
    counts = [whole // part for part in _PARTS if whole // part >= _AT_LEAST]
    if not counts or not uses.shape[1]:
        return [Row("words told by the vectors", f"nothing: fewer than {_AT_LEAST} photos teach")]
    return [_row(vectors, uses, count) for count in counts]


def word_shares(references: Sequence[Sequence[str]]) -> Array:
    """Return the share of each photo's captions that have a word, (photos, words)."""
    said = [[set(tokenize(text)) for text in texts] for texts in references]
    photos = Counter(word for captions in said for word in set().union(*captions))
    words = sorted(word for word, count in photos.items() if count >= _AT_LEAST)
    return np.array(
        [[np.mean([word in c for c in captions]) for word in words] for captions in said]
    )


def predicted(vectors: Array, uses: Array, count: int, ridge_alpha: float) -> Array:
    """Predict every photo's words by ridge regression from `count` photos of other folds."""
    order = np.random.default_rng(0).permutation(len(vectors))
    found = np.zeros_like(uses)
    for fold in range(_FOLDS):
        asked = order[fold::_FOLDS]
        taught = np.setdiff1d(order, asked, assume_unique=True)[:count]
        middle, mean = vectors[taught].mean(axis=0), uses[taught].mean(axis=0)
        known = vectors[taught] - middle
        products = known @ known.T
        ridge = ridge_alpha * np.trace(products) / count * np.eye(count)
        weights = np.linalg.solve(products + ridge, uses[taught] - mean)
        found[asked] = (vectors[asked] - middle) @ known.T @ weights + mean
    return found


def explained(uses: Array, found: Array) -> float:
    """Return the share of the words' variance that predictions explain; 1 at best."""
    return 1 - float(((found - uses) ** 2).sum() / ((uses - uses.mean(axis=0)) ** 2).sum())


def mean_average_precision(uses: Array, found: Array) -> float:
    """Return the mean over words of how well predictions rank the photos that have each."""
    precisions = []
    for has, score in zip(uses.T > 0, found.T, strict=True):
        ranked = has[np.argsort(-score, kind="stable")]
        precisions.append((np.cumsum(ranked) / np.arange(1, len(ranked) + 1))[ranked].mean())
    return float(np.mean(precisions))


def _row(vectors: Array, uses: Array, count: int) -> Row:
    guesses = (predicted(vectors, uses, count, ridge_alpha) for ridge_alpha in _PENALTIES)
    found = max(guesses, key=lambda guess: explained(uses, guess))
    return Row(
        f"{uses.shape[1]} words told by the vectors of {count} photos",
        f"{explained(uses, found):.1%} of their variance, "
        f"mean average precision {mean_average_precision(uses, found):.1%}",
    )
