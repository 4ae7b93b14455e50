from pathlib import Path

import numpy as np
import pytest

from benchmarks import probe
from benchmarks.harness import Row
from tests.support.captioner import make_store, write_captions

RNG = np.random.default_rng(1)
# Three words that a photo has or not, and features that encode them among noise.
SHARES = RNG.integers(0, 2, (60, 3)).astype(float)
FEATURES = np.concatenate([SHARES @ RNG.normal(size=(3, 8)), RNG.normal(size=(60, 2))], axis=1)


def test_frequent_words_are_counted_by_captions() -> None:
    references = [["A dog runs .", "A dog"]] * 9 + [["a dog", "one cat"]]
    shares = probe.word_shares(references)
    assert shares.shape == (10, 2)  # a, dog
    assert shares[0].tolist() == [1.0, 1.0]
    assert shares[9].tolist() == [0.5, 0.5]


def test_informative_features_predict_words_and_noise_does_not() -> None:
    predictions = probe.cross_validate(FEATURES, SHARES, 54, 0.001)
    assert probe.explained_variance(SHARES, predictions) > 0.95
    assert probe.mean_average_precision(SHARES, predictions) == pytest.approx(1.0)
    noise = probe.cross_validate(RNG.normal(size=(60, 10)), SHARES, 54, 10.0)
    assert probe.explained_variance(SHARES, noise) < 0.1
    assert probe.mean_average_precision(SHARES, noise) < 0.75


def test_a_photo_is_not_used_to_predict_its_own_words() -> None:
    orthogonal = np.eye(60)  # features that have nothing in common
    predictions = probe.cross_validate(orthogonal, SHARES, 54, 1.0)
    assert probe.explained_variance(SHARES, predictions) < 0.05


def test_average_precision_depends_on_the_ranks() -> None:
    shares = np.array([[1.0], [0.0], [0.2], [0.0]])
    predictions = np.array([[0.9], [0.8], [0.7], [0.1]])
    assert probe.mean_average_precision(shares, predictions) == pytest.approx((1 + 2 / 3) / 2)


def run_probe(folder: Path, photos: int) -> list[Row]:
    """Probe a grid store of photos of a dog or a cat; one more photo has no features."""
    ids = [f"{index:02d}.jpg" for index in range(photos)]
    captions = [(name, "a dog" if index % 2 else "a cat") for index, name in enumerate(ids)]
    write_captions(folder / "captions.parquet", {"train": [*captions, ("gone.jpg", "a bed")]})
    make_store(folder / "features.h5", ids, (4, 6))
    return probe.run(folder)


def test_each_large_enough_subset_has_a_row(tmp_path: Path) -> None:
    names = [row.name for row in run_probe(tmp_path, 48)]
    assert names == [
        f"3 words predicted from the features of {count} photos" for count in (10, 21, 43)
    ]


def test_too_few_photos_are_reported_in_a_row(tmp_path: Path) -> None:
    (row,) = run_probe(tmp_path, 11)
    assert row.result == "none: fewer than 10 photos"
