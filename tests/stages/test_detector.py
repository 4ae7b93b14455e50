from pathlib import Path

import numpy as np
import pytest

from pipeline.captioner.neighbours import Neighbours, fit_neighbours
from pipeline.captioner.word_detector import WordDetector, fit_detector
from pipeline.datasets.caption_table import read_caption_table
from pipeline.errors import InputError
from pipeline.stages import detector
from pipeline.text.vocabulary import Vocabulary
from tests.conftest import FEATURE_SPEC
from tests.support.captioner import (
    CAPTIONS,
    make_store,
    make_vocabulary,
    vectors,
    write_captions,
    write_params,
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the outputs of earlier stages; a photo has no features, and one is in another split."""
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path, detector={"ridge_alpha": 0.3})
    captions = {"train": [*CAPTIONS, ("gone.jpg", "a bed")], "dev": [("dev.jpg", "snow")]}
    write_captions(tmp_path / "artifacts" / "captions.parquet", captions)
    make_store(tmp_path / "artifacts" / "features.h5")
    table = read_caption_table(tmp_path / "artifacts" / "captions.parquet")
    vocabulary = Vocabulary.build((text for _, text in CAPTIONS), 1, table.fingerprint)
    vocabulary.save(tmp_path / "artifacts" / "vocabulary.json")
    return tmp_path / "artifacts"


def test_the_stage_fits_on_the_training_photos_that_have_features(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detector.main()
    vocabulary = make_vocabulary()
    fitted = WordDetector.load(folder / "detector.h5", vocabulary, FEATURE_SPEC, 6)
    captions: dict[str, list[list[int]]] = {}
    for image_id, text in CAPTIONS:
        captions.setdefault(image_id, []).append(vocabulary.encode(text))
    features = dict(zip(captions, vectors(), strict=True))
    expected = fit_detector(
        captions, lambda ids: np.stack([features[i] for i in ids]), len(vocabulary), 0.3
    )
    np.testing.assert_allclose(fitted.weights, expected.weights, atol=1e-5)
    np.testing.assert_allclose(fitted.prior, expected.prior)
    words = len(vocabulary.words)
    left_out = (
        "train: 1 captions of failed photos left out (gone.jpg): artifacts/extract.json lists the "
        "reasons"
    )
    assert capsys.readouterr().out == f"{left_out}\n{words} words, fitted on 8 photos\n"
    neighbours = Neighbours.load(
        folder / "neighbours.h5", Vocabulary.load(folder / "vocabulary.json"), fitted
    )
    expected_neighbours = fit_neighbours(
        captions, lambda ids: np.stack([features[i] for i in ids]), fitted
    )
    assert neighbours.digest == expected_neighbours.digest


def test_the_temporary_file_of_a_killed_run_is_removed(folder: Path) -> None:
    for name in ("detector.h5", "neighbours.h5"):
        (folder / f".tmp-01234567-{name}").write_bytes(b"half of it")
    detector.main()
    assert not list(folder.glob(".tmp-*"))


def test_a_vocabulary_of_other_captions_is_refused(folder: Path) -> None:
    make_vocabulary().save(folder / "vocabulary.json")
    with pytest.raises(InputError, match=r"vocabulary\.json.*other captions.*dvc repro tokenize"):
        detector.main()


def test_a_penalty_that_is_too_small_is_named(folder: Path) -> None:
    write_params(folder.parent, detector={"ridge_alpha": 1e-300})
    make_store(folder / "features.h5", ["0.jpg", "1.jpg"])
    with pytest.raises(InputError, match=r"params\.yaml: detector\.ridge_alpha 1e-300: .*raise it"):
        detector.main()
    assert not (folder / "detector.h5").exists()


def test_fewer_than_two_training_photos_with_features_are_refused(folder: Path) -> None:
    make_store(folder / "features.h5", ["z.jpg"])
    with pytest.raises(InputError, match=r"fewer than 2 train photos.*features.*list the reasons"):
        detector.main()


def test_a_vocabulary_that_the_memory_does_not_allow_is_refused_in_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.system.memory.memory_limit", lambda: 1000)
    message = r"the word detector for 6 features and \d+ words takes .*: raise tokenize\.min_count"
    with pytest.raises(InputError, match=message):
        detector.main()
    assert not (folder / "detector.h5").exists()
