from pathlib import Path

import numpy as np
import pytest

from benchmarks import probe
from benchmarks.harness import Row
from tests.support.captioner import make_store, write_captions

RNG = np.random.default_rng(1)
# Three words in a photo or not, and vectors that have them among what tells nothing.
SAID = RNG.integers(0, 2, (60, 3)).astype(float)
TELLING = np.concatenate([SAID @ RNG.normal(size=(3, 8)), RNG.normal(size=(60, 2))], axis=1)


def test_words_of_many_photos_are_counted_by_captions() -> None:
    references = [["A dog runs .", "A dog"]] * 9 + [["a dog", "one cat"]]
    shares = probe.word_shares(references)
    assert shares.shape == (10, 2)  # a, dog
    assert shares[0].tolist() == [1.0, 1.0]
    assert shares[9].tolist() == [0.5, 0.5]


def test_what_vectors_tell_is_found_and_what_they_do_not_is_not() -> None:
    told = probe.predicted(TELLING, SAID, 54, 0.001)
    assert probe.explained(SAID, told) > 0.95
    assert probe.mean_average_precision(SAID, told) == pytest.approx(1.0)
    noise = probe.predicted(RNG.normal(size=(60, 10)), SAID, 54, 10.0)
    assert probe.explained(SAID, noise) < 0.1
    assert probe.mean_average_precision(SAID, noise) < 0.75


def test_a_photo_does_not_teach_its_own_words() -> None:
    alone = np.eye(60)  # vectors that have nothing in common
    told = probe.predicted(alone, SAID, 54, 1.0)
    assert probe.explained(SAID, told) < 0.05


def test_precision_is_that_of_the_ranks() -> None:
    uses = np.array([[1.0], [0.0], [0.2], [0.0]])
    found = np.array([[0.9], [0.8], [0.7], [0.1]])
    assert probe.mean_average_precision(uses, found) == pytest.approx((1 + 2 / 3) / 2)


def rows_of(folder: Path, photos: int) -> list[Row]:
    """Ask about a grid store of photos with a dog or a cat each, and one that has no vector."""
    ids = [f"{index:02d}.jpg" for index in range(photos)]
    said = [(name, "a dog" if index % 2 else "a cat") for index, name in enumerate(ids)]
    write_captions(folder / "captions.parquet", {"train": [*said, ("gone.jpg", "a bed")]})
    make_store(folder / "features.h5", ids, (4, 6))
    return probe.rows(folder)


def test_there_is_a_row_for_every_part_that_is_large_enough(tmp_path: Path) -> None:
    told = [row.what for row in rows_of(tmp_path, 48)]
    assert told == [f"3 words told by the vectors of {count} photos" for count in (10, 21, 43)]


def test_too_few_photos_are_a_row_that_says_so(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, 11)
    assert row.found == "nothing: fewer than 10 photos teach"
