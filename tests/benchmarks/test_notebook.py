"""The notebook's ways that benchmarks compare with do the work that ours do."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import notebook
from benchmarks.notebook_decoder import NotebookDecoder
from pipeline.features.encoders.engines import KerasEngine
from pipeline.features.encoders.networks import with_preprocessing
from pipeline.features.encoders.pretrained import load_encoder
from pipeline.features.feature_spec import read_encoder_config
from pipeline.features.photos import decode_photo, read_photo
from pipeline.text.vocabulary import END, START
from tests.support.artifacts import LEARNED, write_photos


def test_a_photo_is_captioned(artifacts: Path, tmp_path: Path) -> None:
    photos = write_photos(tmp_path, 2)
    assert [notebook.caption(artifacts, photo) for photo in photos] == LEARNED[:2]


def test_features_are_those_the_model_learned_from(artifacts: Path, tmp_path: Path) -> None:
    description = read_encoder_config(artifacts / "encoder.json")
    feature_spec = description.feature_spec("whole", "quarters", 2, "float32")
    (photo,) = write_photos(tmp_path, 1)
    told = notebook.encode(notebook.load_encoder(artifacts, feature_spec), photo)
    network = with_preprocessing(load_encoder(artifacts, "quarters", 2), feature_spec.encoder)
    pixels = decode_photo(read_photo(photo), feature_spec.input_size, 10_000)
    ours = KerasEngine(network, 1).encode(pixels)
    assert told.shape == ours.shape == (1, 4, ours.shape[-1])
    # Another filter makes the photo small: near, not equal.
    assert np.corrcoef(told.ravel(), ours.ravel())[0, 1] > 0.95


def test_prefixes_teach_each_next_word_once(monkeypatch: pytest.MonkeyPatch) -> None:
    captions = [[START, 4, 5, END], [START, 6, END]]
    decoder = NotebookDecoder(np.ones((1, 3), np.float32), [captions], 7, 5)
    taught = []
    monkeypatch.setattr(decoder._network, "train_on_batch", lambda *given: taught.append(given))
    decoder.train_epoch(range(1))
    ((inputs, one_hot),) = taught
    features, prefixes = inputs
    assert features.shape == (5, 3)
    np.testing.assert_array_equal(
        prefixes,
        [
            [0, 0, 0, 0, START],
            [0, 0, 0, START, 4],
            [0, 0, START, 4, 5],
            [0, 0, 0, 0, START],
            [0, 0, 0, START, 6],
        ],
    )
    np.testing.assert_array_equal(one_hot.argmax(axis=1), [4, 5, END, 6, END])
