import shutil
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

from pipeline.captioner.word_detector import WordDetector, fit_detector
from pipeline.datasets.caption_table import read_caption_table
from pipeline.errors import InputError
from pipeline.features.feature_spec import FeatureSpec
from pipeline.stages import detector as stage
from pipeline.text.vocabulary import SPECIAL_TOKENS, UNK, Vocabulary
from tests.conftest import ENCODING
from tests.support.captioner import (
    CAPTIONS,
    make_store,
    make_vocabulary,
    vectors,
    write_captions,
    write_params,
)

PENALTY = 0.3
Array = npt.NDArray[Any]


def said() -> dict[str, list[list[int]]]:
    """Return the ids of each photo's captions."""
    found: dict[str, list[list[int]]] = {}
    for image_id, text in CAPTIONS:
        found.setdefault(image_id, []).append(make_vocabulary().encode(text))
    return found


def make_detector(shape: tuple[int, ...] = (6,), ridge_alpha: float = PENALTY) -> WordDetector:
    features = dict(zip(said(), vectors(shape), strict=True))

    def read(ids: Iterable[str]) -> npt.NDArray[np.float32]:
        return np.stack([features[image_id] for image_id in ids])

    return fit_detector(said(), read, len(make_vocabulary()), ridge_alpha)


def shares() -> Array:
    """Return the share of each photo's captions that have each id, counted one by one."""
    found = np.zeros((len(said()), len(make_vocabulary())))
    for row, captions in zip(found, said().values(), strict=True):
        for word in range(len(SPECIAL_TOKENS), len(row)):
            row[word] = sum(word in caption for caption in captions) / len(captions)
    return found


def unit(vectors_: Array) -> Array:
    lengths: Array = np.linalg.norm(vectors_, axis=-1, keepdims=True)
    return vectors_ / lengths


@pytest.mark.parametrize("shape", [(6,), (4, 6)], ids=["pooled", "places"])
def test_it_is_ridge_regression_on_directions_from_the_mean_photo(shape: tuple[int, ...]) -> None:
    features, targets = vectors(shape).astype(np.float64), shares()
    directions = unit(features - features.reshape(-1, 6).mean(axis=0))
    if len(shape) > 1:
        directions = unit(directions.mean(axis=1))
    # The same in the dual: of photos' products with each other, not of numbers'.
    products = directions @ directions.T + PENALTY * np.eye(len(features))
    weights = directions.T @ np.linalg.solve(products, targets - targets.mean(axis=0))
    expected = np.maximum(directions @ weights + targets.mean(axis=0), 0)
    found = make_detector(shape).detect(vectors(shape))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - targets.mean(axis=0)).max() > 0.2


def test_the_larger_the_penalty_the_more_usual_the_words() -> None:
    shape = (12,)  # numbers enough to tell eight photos apart
    free, bound = make_detector(shape, 1e-6), make_detector(shape, 1e6)
    np.testing.assert_allclose(free.detect(vectors(shape)), shares(), atol=0.1)
    prior = np.tile(bound.prior, (8, 1))
    np.testing.assert_allclose(bound.detect(vectors(shape)), prior, atol=1e-3)


def test_more_photos_than_are_read_at_once_are_one_regression() -> None:
    ids = [str(number) for number in range(150)]
    features = dict(zip(ids, vectors(count=150), strict=True))
    captions = {i: [[4, 5]] if features[i][0] > 0 else [[5, 6]] for i in ids}

    def read(part: Iterable[str]) -> npt.NDArray[np.float32]:
        return np.stack([features[image_id] for image_id in part])

    detector = fit_detector(captions, read, 7, PENALTY)
    found = detector.detect(np.stack([*features.values()]))
    right = (found[:, 4] > found[:, 6]) == [captions[i] == [[4, 5]] for i in ids]
    assert right.mean() > 0.9
    np.testing.assert_allclose(found[:, 5], 1, atol=1e-3)
    assert detector.idf[5] == 0


def test_usual_shares_and_rarity_are_those_of_the_captions() -> None:
    detector = make_detector()
    np.testing.assert_allclose(detector.prior, shares().mean(axis=0), rtol=1e-6)
    dog = make_vocabulary().ids["dog"]
    with_dog = len({image_id for image_id, text in CAPTIONS if "dog" in text.split()})
    assert detector.idf[dog] == pytest.approx(np.log(8 / with_dog))
    assert not detector.prior[: len(SPECIAL_TOKENS)].any()
    assert not detector.idf[: len(SPECIAL_TOKENS)].any()


def test_what_is_as_likely_as_usual_is_no_surprise() -> None:
    detector = make_detector()
    as_usual = np.tile(detector.prior, (2, 1))
    np.testing.assert_allclose(detector.log_odds(as_usual), 0, atol=1e-6)
    more = detector.log_odds(as_usual + 0.1)[:, len(SPECIAL_TOKENS) :]
    assert (more > 0).all()
    assert np.isfinite(detector.log_odds(np.zeros_like(as_usual))).all()


def test_the_foremost_words_are_likely_and_rare() -> None:
    detector = make_detector()
    features = vectors()
    weighed = detector.detect(features) * detector.idf
    found = detector.top_words(features, 3)
    for row, ids in zip(weighed, found, strict=True):
        assert row[ids].tolist() == sorted(row, reverse=True)[:3]
    every = detector.top_words(features, 99)
    for row, ids in zip(weighed, every, strict=True):
        assert set(ids) == set(np.flatnonzero(row > 0).tolist())
    assert min(map(len, every)) < len(make_vocabulary().words)


def test_of_no_photos_nothing_is_detected() -> None:
    assert make_detector().detect(vectors(count=0)).shape == (0, len(make_vocabulary()))
    assert make_detector().top_words(vectors(count=0), 3) == []


def test_one_photo_without_words_is_learned_from_too() -> None:
    detector = fit_detector({"a": [[], [4]]}, lambda _: vectors(count=1), 6, PENALTY)
    np.testing.assert_allclose(detector.detect(vectors()), np.tile([0, 0, 0, 0, 0.5, 0], (8, 1)))


def test_a_photo_like_the_mean_one_is_described_as_usual() -> None:
    detector = make_detector()
    np.testing.assert_allclose(detector.detect(detector.mean[None])[0], detector.prior)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("detector") / "detector.h5"
    make_detector().save(path, make_vocabulary(), ENCODING)
    return path


@pytest.fixture
def file(saved: Path, tmp_path: Path) -> Path:
    """Copy a saved detector, to spoil it."""
    return Path(shutil.copy(saved, tmp_path))


def load(path: Path, encoding: FeatureSpec = ENCODING, width: int = 6) -> WordDetector:
    return WordDetector.load(path, make_vocabulary(), encoding, width)


def test_it_comes_back_as_it_was_and_equal_ones_are_equal_bytes(
    saved: Path, tmp_path: Path
) -> None:
    found, expected = load(saved), make_detector()
    for field in fields(WordDetector):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(expected, field.name))
    found.save(tmp_path / "again.h5", make_vocabulary(), ENCODING)
    assert (tmp_path / "again.h5").read_bytes() == saved.read_bytes()


def refused(path: Path, problem: str) -> None:
    with pytest.raises(InputError, match=rf"{problem}.*: run `dvc repro detector`") as error:
        load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_one_of_another_vocabulary_or_encoding_is_refused(file: Path) -> None:
    words = make_vocabulary().words[::-1]
    other = Vocabulary(words, make_vocabulary().counts, 0, "captions")
    with pytest.raises(InputError, match="was made with another vocabulary"):
        WordDetector.load(file, other, ENCODING, 6)
    with pytest.raises(InputError, match="was made from features of another making"):
        load(file, replace(ENCODING, input_size=512))
    with pytest.raises(InputError, match="was made from features of another making"):
        load(file, width=7)


def test_one_of_fewer_ids_is_refused(tmp_path: Path) -> None:
    whole = make_detector()
    fewer = WordDetector(whole.mean, whole.weights[:, 1:], whole.prior[1:], whole.idf[1:])
    fewer.save(tmp_path / "detector.h5", make_vocabulary(), ENCODING)
    refused(tmp_path / "detector.h5", "was made with another vocabulary")


def test_one_of_other_captions_is_refused_where_they_are_known(file: Path) -> None:
    known = make_vocabulary().captions_fingerprint
    assert WordDetector.load(file, make_vocabulary(), ENCODING, 6, known).prior.any()
    with pytest.raises(InputError, match=r"was made from other captions: run `dvc repro detector`"):
        WordDetector.load(file, make_vocabulary(), ENCODING, 6, "others")


def test_an_absent_or_cut_file_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:900])
    refused(file, "is (not a readable HDF5 file|no detector)")
    file.unlink()
    refused(file, "is not there")


def replaced(file: Path, name: str, value: Any) -> None:
    with h5py.File(file, "r+") as opened:
        del opened[name]
        opened[name] = value


@pytest.mark.parametrize("name", [field.name for field in fields(WordDetector)])
@pytest.mark.parametrize("value", ["text", np.zeros((3, 2)), h5py.SoftLink("/mean"), None])
def test_arrays_that_are_absent_or_others_are_refused(file: Path, name: str, value: Any) -> None:
    if value is None:
        with h5py.File(file, "r+") as opened:
            del opened[name]
    else:
        replaced(file, name, value)
    refused(file, "is no detector|is a link")


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("mean", np.zeros(5), "weights does not fit the others"),
        ("mean", np.zeros(()), "mean does not fit the others"),
        ("mean", np.full(6, np.nan), "mean has numbers out of all bounds"),
        ("prior", -make_detector().prior - 0.1, "prior has numbers out of all bounds"),
        ("weights", make_detector().weights + 3e38, "weights has numbers out of all bounds"),
        ("idf", make_detector().idf + np.inf, "idf has numbers out of all bounds"),
    ],
)
def test_a_file_that_agrees_with_itself_alone_is_refused(
    file: Path, name: str, value: Array, problem: str
) -> None:
    changed = replace(make_detector(), **{name: value.astype(np.float32)})
    changed.save(file, make_vocabulary(), ENCODING)
    refused(file, f"is no detector .{problem}")


def test_a_number_that_changed_is_noticed(file: Path) -> None:
    with h5py.File(file, "r+") as opened:
        opened["weights"][2, 7] += 1e-3
    refused(file, "is no detector .its numbers are not those that were written")


def test_an_array_larger_than_its_file_is_not_read(file: Path) -> None:
    with h5py.File(file, "r+") as opened:
        del opened["prior"]
        opened.create_dataset("prior", (1 << 40,), "<f4", chunks=(1024,))
    refused(file, "is no detector ./prior is larger than the file")


def test_another_version_is_refused(file: Path) -> None:
    with h5py.File(file, "r+") as opened:
        opened.attrs["format_version"] = 99
    refused(file, "is no detector .format version 99, not 2")


@pytest.fixture
def laid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lay what the stages before leave; one photo has no features, one is of another split."""
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path)
    captions = {"train": [*CAPTIONS, ("gone.jpg", "a bed")], "dev": [("dev.jpg", "snow")]}
    write_captions(tmp_path / "artifacts" / "captions.parquet", captions)
    make_store(tmp_path / "artifacts" / "features.h5")
    table = read_caption_table(tmp_path / "artifacts" / "captions.parquet")
    vocabulary = Vocabulary.build((text for _, text in CAPTIONS), 1, table.fingerprint)
    vocabulary.save(tmp_path / "artifacts" / "vocabulary.json")
    return tmp_path / "artifacts"


def test_the_stage_learns_from_the_training_photos_that_have_features(
    laid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.main()
    found, expected = load(laid / "detector.h5"), make_detector()
    np.testing.assert_allclose(found.weights, expected.weights, atol=1e-5)
    np.testing.assert_allclose(found.prior, expected.prior)
    words = len(make_vocabulary().words)
    left_out = "train: 1 captions of failed photos left out"
    assert capsys.readouterr().out == f"{left_out}\n{words} words, fitted on 8 photos\n"


def test_the_stage_wants_a_vocabulary_of_these_captions(laid: Path) -> None:
    make_vocabulary().save(laid / "vocabulary.json")
    with pytest.raises(InputError, match=r"vocabulary\.json.*other captions.*dvc repro tokenize"):
        stage.main()


def test_a_penalty_too_small_to_solve_it_is_named(laid: Path) -> None:
    write_params(laid.parent, detector={"ridge_alpha": 1e-300})
    make_store(laid / "features.h5", ["0.jpg", "1.jpg"])
    with pytest.raises(InputError, match=r"params\.yaml: detector\.ridge_alpha 1e-300: .*raise it"):
        stage.main()
    assert not (laid / "detector.h5").exists()


def test_the_stage_wants_photos(laid: Path) -> None:
    make_store(laid / "features.h5", ["z.jpg"])
    with pytest.raises(InputError, match=r"fewer than 2 train photos.*features.*list the reasons"):
        stage.main()


def test_unknown_words_are_not_detected() -> None:
    assert make_vocabulary().encode("unheard of")[0] == UNK
    features = vectors(count=2)
    captions = {"a": [[UNK, 4]], "b": [[5]]}
    detector = fit_detector(captions, lambda ids: features[: len(list(ids))], 6, PENALTY)
    assert not detector.detect(features)[:, : len(SPECIAL_TOKENS)].any()
