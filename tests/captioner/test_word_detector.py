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
from pipeline.errors import InputError
from pipeline.features.feature_spec import FeatureSpec
from pipeline.text.vocabulary import SPECIAL_TOKENS, UNK, Vocabulary
from tests.conftest import FEATURE_SPEC
from tests.support.captioner import CAPTIONS, make_vocabulary, vectors

RIDGE_ALPHA = 0.3
Array = npt.NDArray[Any]


def encoded_captions() -> dict[str, list[list[int]]]:
    """Return the ids of each photo's captions."""
    result: dict[str, list[list[int]]] = {}
    for image_id, text in CAPTIONS:
        result.setdefault(image_id, []).append(make_vocabulary().encode(text))
    return result


def make_detector(shape: tuple[int, ...] = (6,), ridge_alpha: float = RIDGE_ALPHA) -> WordDetector:
    features = dict(zip(encoded_captions(), vectors(shape), strict=True))

    def read(ids: Iterable[str]) -> npt.NDArray[np.float32]:
        return np.stack([features[image_id] for image_id in ids])

    return fit_detector(encoded_captions(), read, len(make_vocabulary()), ridge_alpha)


def caption_shares() -> Array:
    """Return the share of each photo's captions that have each id, counted one by one."""
    shares = np.zeros((len(encoded_captions()), len(make_vocabulary())))
    for row, captions in zip(shares, encoded_captions().values(), strict=True):
        for word in range(len(SPECIAL_TOKENS), len(row)):
            row[word] = sum(word in caption for caption in captions) / len(captions)
    return shares


def normalize(features: Array) -> Array:
    lengths: Array = np.linalg.norm(features, axis=-1, keepdims=True)
    return features / lengths


@pytest.mark.parametrize("shape", [(6,), (4, 6)], ids=["pooled", "grid"])
def test_the_detector_is_a_ridge_regression_on_unit_directions(
    shape: tuple[int, ...],
) -> None:
    features, targets = vectors(shape).astype(np.float64), caption_shares()
    directions = normalize(features - features.reshape(-1, 6).mean(axis=0))
    if len(shape) > 1:
        directions = normalize(directions.mean(axis=1))
    # The dual solution: with the Gram matrix of the photos instead of the features.
    products = directions @ directions.T + len(features) * RIDGE_ALPHA * np.eye(len(features))
    weights = directions.T @ np.linalg.solve(products, targets - targets.mean(axis=0))
    expected = np.maximum(directions @ weights + targets.mean(axis=0), 0)
    detected = make_detector(shape).detect(vectors(shape))
    assert detected.dtype == np.float32
    np.testing.assert_allclose(detected, expected, atol=1e-5)
    assert np.abs(detected - targets.mean(axis=0)).max() > 0.2


def test_a_larger_penalty_moves_detections_towards_the_prior() -> None:
    shape = (12,)  # more features than photos: they can be fitted exactly
    weak, strong = make_detector(shape, 1e-6), make_detector(shape, 1e6)
    np.testing.assert_allclose(weak.detect(vectors(shape)), caption_shares(), atol=0.1)
    prior = np.tile(strong.prior, (8, 1))
    np.testing.assert_allclose(strong.detect(vectors(shape)), prior, atol=1e-3)


def test_photos_read_in_several_chunks_are_one_regression() -> None:
    ids = [str(number) for number in range(150)]
    features = dict(zip(ids, vectors(count=150), strict=True))
    captions = {i: [[4, 5]] if features[i][0] > 0 else [[5, 6]] for i in ids}

    def read(chunk: Iterable[str]) -> npt.NDArray[np.float32]:
        return np.stack([features[image_id] for image_id in chunk])

    detector = fit_detector(captions, read, 7, 0.002)
    detected = detector.detect(np.stack([*features.values()]))
    right = (detected[:, 4] > detected[:, 6]) == [captions[i] == [[4, 5]] for i in ids]
    assert right.mean() > 0.9
    np.testing.assert_allclose(detected[:, 5], 1, atol=1e-3)
    assert detector.idf[5] == 0


def test_prior_and_idf_are_those_of_the_captions() -> None:
    detector = make_detector()
    np.testing.assert_allclose(detector.prior, caption_shares().mean(axis=0), rtol=1e-6)
    dog = make_vocabulary().ids["dog"]
    with_dog = len({image_id for image_id, text in CAPTIONS if "dog" in text.split()})
    assert detector.idf[dog] == pytest.approx(np.log(8 / with_dog))
    assert not detector.prior[: len(SPECIAL_TOKENS)].any()
    assert not detector.idf[: len(SPECIAL_TOKENS)].any()


def test_log_odds_are_zero_at_the_prior_and_finite_everywhere() -> None:
    detector = make_detector()
    prior = np.tile(detector.prior, (2, 1))
    np.testing.assert_allclose(detector.log_odds(prior), 0, atol=1e-6)
    raised = detector.log_odds(prior + 0.1)[:, len(SPECIAL_TOKENS) :]
    assert (raised > 0).all()
    assert np.isfinite(detector.log_odds(np.zeros_like(prior))).all()


def test_top_words_have_the_highest_share_times_idf() -> None:
    detector = make_detector()
    features = vectors()
    scores = detector.detect(features) * detector.idf
    top = detector.top_words(features, 3)
    for row, ids in zip(scores, top, strict=True):
        assert row[ids].tolist() == sorted(row, reverse=True)[:3]
    all_detected = detector.top_words(features, 99)
    for row, ids in zip(scores, all_detected, strict=True):
        assert set(ids) == set(np.flatnonzero(row > 0).tolist())
    assert min(map(len, all_detected)) < len(make_vocabulary().words)


def test_without_photos_nothing_is_detected() -> None:
    assert make_detector().detect(vectors(count=0)).shape == (0, len(make_vocabulary()))
    assert make_detector().top_words(vectors(count=0), 3) == []


def test_a_caption_without_words_counts_in_the_shares() -> None:
    detector = fit_detector({"a": [[], [4]]}, lambda _: vectors(count=1), 6, RIDGE_ALPHA)
    np.testing.assert_allclose(detector.detect(vectors()), np.tile([0, 0, 0, 0, 0.5, 0], (8, 1)))


def test_for_mean_features_the_prior_is_detected() -> None:
    detector = make_detector()
    np.testing.assert_allclose(detector.detect(detector.mean[None])[0], detector.prior)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("detector") / "detector.h5"
    make_detector().save(path, make_vocabulary(), FEATURE_SPEC)
    return path


@pytest.fixture
def file(saved: Path, tmp_path: Path) -> Path:
    """Copy a saved detector, to damage it."""
    return Path(shutil.copy(saved, tmp_path))


def load(
    path: Path, feature_spec: FeatureSpec = FEATURE_SPEC, feature_size: int = 6
) -> WordDetector:
    return WordDetector.load(path, make_vocabulary(), feature_spec, feature_size)


def test_a_detector_loads_as_it_was_saved_and_equal_ones_give_equal_bytes(
    saved: Path, tmp_path: Path
) -> None:
    loaded, expected = load(saved), make_detector()
    for field in fields(WordDetector):
        np.testing.assert_array_equal(getattr(loaded, field.name), getattr(expected, field.name))
    loaded.save(tmp_path / "again.h5", make_vocabulary(), FEATURE_SPEC)
    assert (tmp_path / "again.h5").read_bytes() == saved.read_bytes()


def refused(path: Path, problem: str) -> None:
    with pytest.raises(InputError, match=rf"{problem}.*: run `dvc repro detector`") as error:
        load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_another_vocabulary_or_other_features_are_refused(file: Path) -> None:
    words = make_vocabulary().words[::-1]
    other = Vocabulary(words, make_vocabulary().counts, 0, "captions")
    with pytest.raises(InputError, match="was fitted with another vocabulary"):
        WordDetector.load(file, other, FEATURE_SPEC, 6)
    with pytest.raises(InputError, match="was fitted on other features"):
        load(file, replace(FEATURE_SPEC, input_size=512))
    with pytest.raises(InputError, match="was fitted on other features"):
        load(file, feature_size=7)


def test_a_detector_with_fewer_ids_is_refused(tmp_path: Path) -> None:
    full = make_detector()
    smaller = WordDetector(full.mean, full.weights[:, 1:], full.prior[1:], full.idf[1:])
    smaller.save(tmp_path / "detector.h5", make_vocabulary(), FEATURE_SPEC)
    refused(tmp_path / "detector.h5", "was fitted with another vocabulary")


def test_other_captions_are_refused_if_a_fingerprint_is_given(file: Path) -> None:
    fingerprint = make_vocabulary().captions_fingerprint
    assert WordDetector.load(file, make_vocabulary(), FEATURE_SPEC, 6, fingerprint).prior.any()
    with pytest.raises(InputError, match=r"was fitted on other captions: run `dvc repro detector`"):
        WordDetector.load(file, make_vocabulary(), FEATURE_SPEC, 6, "others")


def test_a_missing_or_truncated_file_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:900])
    refused(file, "is not a readable HDF5 file|is not a word detector")
    file.unlink()
    refused(file, "is not there")


def replace_array(file: Path, name: str, value: Any) -> None:
    with h5py.File(file, "r+") as opened:
        del opened[name]
        opened[name] = value


@pytest.mark.parametrize("name", [field.name for field in fields(WordDetector)])
@pytest.mark.parametrize("value", ["text", np.zeros((3, 2)), h5py.SoftLink("/mean"), None])
def test_missing_or_invalid_arrays_are_refused(file: Path, name: str, value: Any) -> None:
    if value is None:
        with h5py.File(file, "r+") as opened:
            del opened[name]
    else:
        replace_array(file, name, value)
    refused(file, "is not a word detector|is a link")


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("mean", np.zeros(5), "the shape of weights does not fit"),
        ("mean", np.zeros(()), "the shape of mean does not fit"),
        ("mean", np.full(6, np.nan), "mean has numbers out of bounds"),
        ("prior", -make_detector().prior - 0.1, "prior has numbers out of bounds"),
        ("weights", make_detector().weights + 3e38, "weights has numbers out of bounds"),
        ("idf", make_detector().idf + np.inf, "idf has numbers out of bounds"),
    ],
)
def test_invalid_numbers_with_a_matching_digest_are_refused(
    file: Path, name: str, value: Array, problem: str
) -> None:
    changed = replace(make_detector(), **{name: value.astype(np.float32)})
    changed.save(file, make_vocabulary(), FEATURE_SPEC)
    refused(file, f"is not a word detector .{problem}")


def test_a_changed_number_is_refused(file: Path) -> None:
    with h5py.File(file, "r+") as opened:
        opened["weights"][2, 7] += 1e-3
    refused(file, "is not a word detector .its numbers do not match their digest")


def test_an_array_larger_than_its_file_is_not_read(file: Path) -> None:
    with h5py.File(file, "r+") as opened:
        del opened["prior"]
        opened.create_dataset("prior", (1 << 40,), "<f4", chunks=(1024,))
    refused(file, "is not a word detector ./prior is larger than the file")


def test_another_version_is_refused(file: Path) -> None:
    with h5py.File(file, "r+") as opened:
        opened.attrs["format_version"] = 99
    refused(file, "is not a word detector .format version 99, not 2")


def test_unknown_words_are_not_detected() -> None:
    assert make_vocabulary().encode("unheard of")[0] == UNK
    features = vectors(count=2)
    captions = {"a": [[UNK, 4]], "b": [[5]]}
    detector = fit_detector(captions, lambda ids: features[: len(list(ids))], 6, RIDGE_ALPHA)
    assert not detector.detect(features)[:, : len(SPECIAL_TOKENS)].any()
