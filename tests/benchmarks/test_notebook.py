"""The notebook's way, with which benchmarks compare, does the same work as the project."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import notebook
from benchmarks.notebook_decoder import NotebookDecoder
from pipeline.features.decoding.photos import decode_photo, read_photo
from pipeline.features.encoders.engines import KerasEngine
from pipeline.features.encoders.networks import with_preprocessing
from pipeline.features.encoders.pretrained import load_encoder
from pipeline.features.feature_spec import read_encoder_config
from pipeline.text.vocabulary import END, START
from tests.support.artifacts import LEARNED, write_photos


def test_the_notebook_captions_a_photo_like_the_model(artifacts: Path, tmp_path: Path) -> None:
    photos = write_photos(tmp_path, 2)
    assert [notebook.caption_greedily(artifacts, photo) for photo in photos] == LEARNED[:2]


def test_the_notebook_s_features_agree_with_the_engine_s(artifacts: Path, tmp_path: Path) -> None:
    encoder_config = read_encoder_config(artifacts / "encoder.json")
    feature_spec = encoder_config.feature_spec("whole", "quarters", 2, "float32")
    (photo,) = write_photos(tmp_path, 1)
    encoder = notebook.build_notebook_encoder(artifacts, feature_spec)
    notebook_features = notebook.encode_photo(encoder, photo)
    network = with_preprocessing(load_encoder(artifacts, "quarters", 2), feature_spec.encoder)
    pixels = decode_photo(read_photo(photo), feature_spec.input_size, 10_000)
    features = KerasEngine(network, 1).encode(pixels)
    assert notebook_features.shape == features.shape == (1, 4, features.shape[-1])
    # The resize filters differ: similar, not equal.
    assert np.corrcoef(notebook_features.ravel(), features.ravel())[0, 1] > 0.95


def test_each_word_is_the_target_of_one_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    captions = [[START, 4, 5, END], [START, 6, END]]
    decoder = NotebookDecoder(np.ones((1, 3), np.float32), [captions], 7, 5)
    batches = []
    monkeypatch.setattr(decoder._network, "train_on_batch", lambda *batch: batches.append(batch))
    decoder.train_epoch(range(1))
    ((inputs, one_hot),) = batches
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
