import csv
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.generation.beam_search import search
from pipeline.captioner.model_folder import Model
from pipeline.captioner.training.epoch_logger import EpochLogger
from pipeline.captioner.training.history import Epoch, SelfCriticalEpoch, write_history
from tests.support.captioner import make_peaked_decoder, make_store, make_vocabulary

HISTORY = [Epoch(1, 3.25, 3.5, 0.0), Epoch(2, 2.125, 2.75, 8.5), Epoch(3, 1.1, 2.9, 7.25)]


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return make_peaked_decoder()


@pytest.fixture
def diary(decoder: Decoder, tmp_path: Path) -> EpochLogger:
    vocabulary = make_vocabulary()
    return EpochLogger(
        folder=tmp_path / "cache" / "diary",
        artifacts=tmp_path / "artifacts",
        table="history.csv",
        seed=7,
        earlier=[],
        decoder=decoder,
        vocabulary=vocabulary,
        store=make_store(tmp_path / "features.h5"),
        samples={"5.jpg": None, "1.jpg": tmp_path / "gone.jpg"},
        max_words=5,
        keep_every_epoch=False,
        metadata={"captions": "these"},
        tensorboard=None,
    )


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_every_epoch_is_shown_in_the_artefacts_as_it_ends(diary: EpochLogger) -> None:
    expected = ["history.csv"]
    for count in range(1, 4):
        diary.write(HISTORY[:count])
        expected += [*(f"samples/seed_7/epoch_00{count}.{kind}" for kind in ("png", "txt"))]
        assert files(diary.artifacts) == files(diary.folder) == sorted(expected)


def test_the_history_has_a_row_an_epoch_with_all_digits(diary: EpochLogger) -> None:
    for count in (1, 2, 3):
        diary.write(HISTORY[:count])
    text = (diary.artifacts / "history.csv").read_text()
    assert text.splitlines()[0] == "seed,epoch,loss,validation_loss,validation_cider_d"
    assert rows_of(text) == [(7, row) for row in HISTORY]


def rows_of(text: str) -> list[tuple[int, Epoch]]:
    return [
        (int(seed), Epoch(int(epoch), *map(float, values)))
        for seed, epoch, *values in list(csv.reader(text.splitlines()))[1:]
    ]


def test_epochs_of_other_seeds_stay_in_the_history(diary: EpochLogger) -> None:
    earlier = [(3, row) for row in HISTORY]
    replace(diary, earlier=earlier, samples={}).write(HISTORY[:1])
    assert rows_of((diary.artifacts / "history.csv").read_text()) == [*earlier, (7, HISTORY[0])]


def test_a_table_without_epochs_has_its_columns(tmp_path: Path) -> None:
    write_history(tmp_path / "self_critical.csv", [], SelfCriticalEpoch)
    text = (tmp_path / "self_critical.csv").read_text()
    assert text == "seed,epoch,reward,validation_loss,validation_cider_d\n"


def test_samples_are_what_greedy_search_finds(diary: EpochLogger) -> None:
    diary.write(HISTORY[:1])
    found = search(diary.decoder, diary.store.read(["5.jpg", "1.jpg"]), 1, 5)
    texts = [diary.vocabulary.decode(hypotheses[0].ids) for hypotheses in found]
    assert any(texts)
    shown = (diary.artifacts / "samples" / "seed_7" / "epoch_001.txt").read_text()
    assert shown == f"5.jpg\t{texts[0]}\n1.jpg\t{texts[1]}\n"
    with Image.open(diary.artifacts / "samples" / "seed_7" / "epoch_001.png") as image:
        assert image.format == "PNG"


def test_without_sample_photos_there_is_the_history_alone(diary: EpochLogger) -> None:
    replace(diary, samples={}).write(HISTORY[:1])
    assert files(diary.artifacts) == ["history.csv"]


def test_what_was_deleted_from_the_artefacts_is_shown_again(diary: EpochLogger) -> None:
    diary.write(HISTORY[:1])
    shutil.rmtree(diary.artifacts)
    diary.write(HISTORY[:2])
    assert "samples/seed_7/epoch_001.txt" in files(diary.artifacts)
    shutil.rmtree(diary.artifacts)
    diary.publish()
    assert files(diary.artifacts) == files(diary.folder)


def test_what_others_put_into_the_artefacts_stays(diary: EpochLogger) -> None:
    diary.artifacts.mkdir()
    (diary.artifacts / "vocabulary.json").write_text("{}")
    diary.write(HISTORY[:1])
    assert (diary.artifacts / "vocabulary.json").read_text() == "{}"


def test_every_epochs_model_can_be_kept_and_loaded(diary: EpochLogger, decoder: Decoder) -> None:
    diary = replace(diary, keep_every_epoch=True, samples={})
    first = decoder.network.get_weights()
    diary.write(HISTORY[:1])
    decoder.network.set_weights([2 * weight for weight in first])
    try:
        diary.write(HISTORY[:2])
    finally:
        decoder.network.set_weights(first)
    epochs = diary.artifacts / "model" / "epochs" / "seed_7"
    assert sorted(path.name for path in epochs.iterdir()) == ["epoch_001", "epoch_002"]
    for scale, folder in ((1, "epoch_001"), (2, "epoch_002")):
        loaded = Model.load(epochs / folder, diary.vocabulary)
        assert loaded.description.encoding == diary.store.encoding
        assert loaded.description.metadata == {"captions": "these"}
        (member,) = loaded.description.members
        assert member.metadata["best"] == asdict(HISTORY[scale - 1])
        for found, weight in zip(loaded.decoders[0].network.get_weights(), first, strict=True):
            np.testing.assert_array_equal(found, scale * weight)


class Board:
    """What a TensorBoard would be told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, dict[str, float]]] = []

    def scalars(self, step: int, _: float, values: dict[str, float]) -> None:
        self.told.append((step, values))


def test_losses_are_told_to_the_board(diary: EpochLogger) -> None:
    tensorboard: Any = Board()
    diary = replace(diary, tensorboard=tensorboard, samples={})
    diary.write(HISTORY[:1])
    diary.write(HISTORY[:2])
    assert tensorboard.told == [
        (1, {"loss": 3.25, "validation_loss": 3.5, "validation_cider_d": 0.0}),
        (2, {"loss": 2.125, "validation_loss": 2.75, "validation_cider_d": 8.5}),
    ]
