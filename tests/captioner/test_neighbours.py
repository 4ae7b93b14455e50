import shutil
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from pipeline.captioner.neighbours import COUNT, Neighbours, fit_neighbours
from pipeline.captioner.word_detector import WordDetector, fit_detector
from pipeline.errors import InputError
from pipeline.metrics.cider import CiderD
from pipeline.metrics.references import References
from pipeline.text.vocabulary import UNK, Vocabulary
from tests.support.captioner import CAPTIONS, make_vocabulary, vectors

Array = npt.NDArray[Any]
Captions = dict[str, list[list[int]]]


def encoded_captions() -> Captions:
    """Return the ids of each photo's captions: of some one caption, of others two."""
    result: Captions = {}
    for image_id, text in CAPTIONS:
        result.setdefault(image_id, []).append(make_vocabulary().encode(text))
    return result


def drawn_captions(count: int) -> Captions:
    random = np.random.default_rng(1)
    return {
        str(photo): [
            random.integers(UNK, 9, random.integers(0, 8)).tolist()
            for _ in range(random.integers(1, 4))
        ]
        for photo in range(count)
    }


def fit(
    captions: Captions, features: Array, vocabulary_size: int
) -> tuple[WordDetector, Neighbours]:
    rows = dict(zip(captions, features, strict=True))

    def read(ids: Iterable[str]) -> npt.NDArray[np.float32]:
        return np.stack([rows[image_id] for image_id in ids])

    detector = fit_detector(captions, read, vocabulary_size, 0.3)
    return detector, fit_neighbours(captions, read, detector)


def make_detector() -> WordDetector:
    return fit(encoded_captions(), vectors(), len(make_vocabulary()))[0]


def make_neighbours() -> Neighbours:
    return fit(encoded_captions(), vectors(), len(make_vocabulary()))[1]


@pytest.mark.parametrize("shape", [(6,), (4, 6)], ids=["pooled", "grid"])
def test_neighbours_are_the_photos_with_the_largest_cosines(shape: tuple[int, ...]) -> None:
    features, others = vectors(shape, 150), vectors(shape, 70, seed=3)
    detector, neighbours = fit(drawn_captions(150), features, 9)
    photos, weights = neighbours.nearest(detector.directions(others))
    assert photos.shape == weights.shape == (70, COUNT)
    cosines = detector.directions(others) @ detector.directions(features).T
    nearest = np.take_along_axis(cosines, photos, axis=1)
    # Stored numbers have three digits, so that photos that are as near may change places.
    np.testing.assert_allclose(nearest, -np.sort(-cosines, axis=1)[:, :COUNT], atol=4e-3)
    np.testing.assert_allclose(weights, np.exp((nearest - nearest[:, :1]) / 0.1), rtol=0.1)
    assert (weights[:, 0] == 1).all()


def test_a_training_photo_is_its_own_nearest_neighbour_among_few() -> None:
    detector, neighbours = make_detector(), make_neighbours()
    photos, _ = neighbours.nearest(detector.directions(vectors()))
    assert photos[:, 0].tolist() == list(range(8))
    assert np.sort(photos, axis=1).tolist() == [list(range(8))] * 8


def test_of_many_features_the_leading_components_are_kept() -> None:
    # Photos differ in 20 directions, and hardly in the others.
    random = np.random.default_rng(0)
    signal = random.normal(size=(60, 20)) @ random.normal(size=(20, 300))
    features = (signal + random.normal(size=(60, 300)) / 100).astype(np.float32)
    detector, neighbours = fit(drawn_captions(60), features, 9)
    assert neighbours.components.shape == (300, 256)
    directions = detector.directions(features)
    products = directions @ neighbours.components @ neighbours.coordinates.T
    np.testing.assert_allclose(products, directions @ directions.T, atol=2e-3)
    gram = neighbours.components.T @ neighbours.components
    np.testing.assert_allclose(gram, np.eye(256), atol=1e-4)


def test_consensus_is_the_weighted_mean_cider_d_with_the_neighbours_captions() -> None:
    captions = drawn_captions(60)
    detector, neighbours = fit(captions, vectors(count=60), 9)
    directions = detector.directions(vectors(count=3, seed=5))
    beams = [[[4, 5, 6], [], [7, 8, 7, 8, 4, 5]], [[4]], [[8, 7, 6, 5, 4], [4, 4, 4, 4]]]
    tokens = [[[str(word) for word in ids] for ids in group] for group in captions.values()]
    cider_d = CiderD(References(tokens))
    for beam, consensus, photos, weights in zip(
        beams, neighbours.consensus(directions, beams), *neighbours.nearest(directions), strict=True
    ):
        counts = np.array([len(tokens[photo]) for photo in photos])
        expected = [
            np.average(
                cider_d.scores([[str(word) for word in ids]] * COUNT, photos) / 100,
                weights=weights * counts,
            )
            for ids in beam
        ]
        np.testing.assert_allclose(consensus, expected, atol=1e-6)
        assert max(expected) > 0.1


def test_without_photos_there_is_no_consensus() -> None:
    assert make_neighbours().consensus(np.zeros((0, 6), np.float32), []) == []


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("neighbours") / "neighbours.h5"
    make_neighbours().save(path, make_vocabulary(), make_detector())
    return path


@pytest.fixture
def file(saved: Path, tmp_path: Path) -> Path:
    """Copy saved neighbours, to damage them."""
    return Path(shutil.copy(saved, tmp_path))


def load(path: Path) -> Neighbours:
    return Neighbours.load(path, make_vocabulary(), make_detector())


def test_neighbours_load_as_they_were_saved_and_equal_ones_give_equal_bytes(
    saved: Path, tmp_path: Path
) -> None:
    loaded, expected = load(saved), make_neighbours()
    for field in fields(Neighbours):
        np.testing.assert_array_equal(getattr(loaded, field.name), getattr(expected, field.name))
    directions, beams = make_detector().directions(vectors(count=1)), [[(4, 5), (6,)]]
    np.testing.assert_array_equal(
        loaded.consensus(directions, beams), expected.consensus(directions, beams)
    )
    loaded.save(tmp_path / "again.h5", make_vocabulary(), make_detector())
    assert (tmp_path / "again.h5").read_bytes() == saved.read_bytes()


def refused(path: Path, problem: str) -> None:
    with pytest.raises(InputError, match=rf"{problem}.*: run `dvc repro detector`$") as error:
        load(path)
    assert str(path) in str(error.value)


def test_neighbours_of_other_inputs_are_refused(file: Path) -> None:
    vocabulary, detector = make_vocabulary(), make_detector()
    other_words = Vocabulary(vocabulary.words[::-1], vocabulary.counts, 0, "captions")
    other_captions = replace(vocabulary, captions_fingerprint="others")
    other_detector = replace(detector, prior=detector.prior + 1)
    for inputs, name in (
        ((other_words, detector), "vocabulary"),
        ((other_captions, detector), "captions"),
        ((vocabulary, other_detector), "detector"),
    ):
        message = f"{file} was made with another {name}: run `dvc repro detector`"
        with pytest.raises(InputError) as error:
            Neighbours.load(file, *inputs)
        assert str(error.value) == message


def test_a_missing_or_truncated_file_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:900])
    refused(file, "is not a readable HDF5 file|is not a file of neighbours")
    file.unlink()
    refused(file, "is not there")


@pytest.mark.parametrize("name", [field.name for field in fields(Neighbours)])
@pytest.mark.parametrize("value", ["text", np.zeros((3, 2)), h5py.SoftLink("/words"), None])
def test_missing_or_invalid_arrays_are_refused(file: Path, name: str, value: Any) -> None:
    with h5py.File(file, "r+") as opened:
        del opened[name]
        if value is not None:
            opened[name] = value
    refused(file, "is not a file of neighbours|is a link")


SOUND = make_neighbours()
FORGED: list[tuple[str, Array, str]] = [
    ("components", SOUND.components[:, 1:], "the shape of coordinates does not fit"),
    ("components", SOUND.components * np.nan, "components has numbers out of bounds"),
    ("components", SOUND.components[1:], "was made with another detector"),
    ("coordinates", SOUND.coordinates[1:], "the shape of caption_counts does not fit"),
    ("coordinates", SOUND.coordinates * np.inf, "coordinates has numbers out of bounds"),
    ("caption_counts", SOUND.caption_counts + 1, "the shape of lengths does not fit"),
    ("caption_counts", np.array([0, 3, 2, 1, 1, 1, 1, 1]), "a photo has no captions"),
    ("lengths", SOUND.lengths + 1, "the shape of words does not fit"),
    ("words", SOUND.words + 99, "was made with another vocabulary"),
    ("ngrams", SOUND.ngrams[::-1], "ngrams is not sorted"),
    ("ngrams", SOUND.ngrams[1:], "the shape of document_frequencies does not fit"),
    ("document_frequencies", SOUND.document_frequencies * 0, "document_frequencies has numbers"),
    ("document_frequencies", SOUND.document_frequencies + 7, "document_frequencies has numbers"),
]


@pytest.mark.parametrize(("name", "value", "problem"), FORGED)
def test_invalid_numbers_with_a_matching_digest_are_refused(
    file: Path, name: str, value: Array, problem: str
) -> None:
    forged = replace(make_neighbours(), **{name: value})
    forged.save(file, make_vocabulary(), make_detector())
    refused(file, problem)


def test_a_changed_number_is_refused(file: Path) -> None:
    with h5py.File(file, "r+") as opened:
        opened["words"][2] = 5 if opened["words"][2] == 4 else 4
    refused(file, "is not a file of neighbours .its numbers do not match their digest")


def test_an_array_larger_than_its_file_is_not_read(file: Path) -> None:
    with h5py.File(file, "r+") as opened:
        del opened["words"]
        opened.create_dataset("words", (1 << 40,), "<u4", chunks=(1024,))
    refused(file, "is not a file of neighbours ./words is larger than the file")


def test_another_version_is_refused(file: Path) -> None:
    with h5py.File(file, "r+") as opened:
        opened.attrs["format_version"] = 99
    refused(file, "is not a file of neighbours .format version 99, not 1")
