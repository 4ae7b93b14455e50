import csv
import os
import shutil
from collections.abc import Callable
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
from pipeline.captioner.training.history import CrossEntropyEpoch, SelfCriticalEpoch, write_history
from tests.support.captioner import make_peaked_decoder, make_store, make_vocabulary

HISTORY = [
    CrossEntropyEpoch(1, 3.25, 3.5, 0.0),
    CrossEntropyEpoch(2, 2.125, 2.75, 8.5),
    CrossEntropyEpoch(3, 1.1, 2.9, 7.25),
]


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return make_peaked_decoder()


@pytest.fixture
def logger(decoder: Decoder, tmp_path: Path) -> EpochLogger:
    vocabulary = make_vocabulary()
    return EpochLogger(
        folder=tmp_path / "cache" / "log",
        artifacts=tmp_path / "artifacts",
        history_file="history.csv",
        seed=7,
        earlier_epochs=[],
        decoder=decoder,
        vocabulary=vocabulary,
        store=make_store(tmp_path / "features.h5"),
        sample_photos={"5.jpg": None, "1.jpg": tmp_path / "gone.jpg"},
        max_words=5,
        keep_every_epoch=False,
        metadata={"captions": "these"},
        tensorboard=None,
    )


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_every_epoch_is_published_when_it_ends(logger: EpochLogger) -> None:
    expected = ["history.csv"]
    for count in range(1, 4):
        logger.log_epoch(HISTORY[:count])
        expected += [*(f"samples/seed_7/epoch_00{count}.{kind}" for kind in ("png", "txt"))]
        assert files(logger.artifacts) == files(logger.folder) == sorted(expected)


def test_the_history_has_a_row_for_each_epoch_with_all_digits(logger: EpochLogger) -> None:
    for count in (1, 2, 3):
        logger.log_epoch(HISTORY[:count])
    text = (logger.artifacts / "history.csv").read_text()
    assert text.splitlines()[0] == "seed,epoch,loss,validation_loss,validation_cider_d"
    assert rows_of(text) == [(7, row) for row in HISTORY]


def rows_of(text: str) -> list[tuple[int, CrossEntropyEpoch]]:
    return [
        (int(seed), CrossEntropyEpoch(int(epoch), *map(float, values)))
        for seed, epoch, *values in list(csv.reader(text.splitlines()))[1:]
    ]


def test_epochs_of_other_seeds_stay_in_the_history(logger: EpochLogger) -> None:
    earlier = [(3, row) for row in HISTORY]
    replace(logger, earlier_epochs=earlier, sample_photos={}).log_epoch(HISTORY[:1])
    assert rows_of((logger.artifacts / "history.csv").read_text()) == [*earlier, (7, HISTORY[0])]


def test_a_history_without_epochs_has_its_columns(tmp_path: Path) -> None:
    write_history(tmp_path / "self_critical.csv", [], SelfCriticalEpoch)
    text = (tmp_path / "self_critical.csv").read_text()
    assert text == "seed,epoch,reward,validation_loss,validation_cider_d\n"


def test_samples_are_the_captions_of_greedy_search(logger: EpochLogger) -> None:
    logger.log_epoch(HISTORY[:1])
    results = search(logger.decoder, logger.store.read(["5.jpg", "1.jpg"]), 1, 5)
    texts = [logger.vocabulary.decode(hypotheses[0].ids) for hypotheses in results]
    assert any(texts)
    published = (logger.artifacts / "samples" / "seed_7" / "epoch_001.txt").read_text()
    assert published == f"5.jpg\t{texts[0]}\n1.jpg\t{texts[1]}\n"
    with Image.open(logger.artifacts / "samples" / "seed_7" / "epoch_001.png") as image:
        assert image.format == "PNG"


def test_without_sample_photos_only_the_history_is_written(logger: EpochLogger) -> None:
    replace(logger, sample_photos={}).log_epoch(HISTORY[:1])
    assert files(logger.artifacts) == ["history.csv"]


def test_files_deleted_from_the_artifacts_are_published_again(logger: EpochLogger) -> None:
    logger.log_epoch(HISTORY[:1])
    shutil.rmtree(logger.artifacts)
    logger.log_epoch(HISTORY[:2])
    assert "samples/seed_7/epoch_001.txt" in files(logger.artifacts)
    shutil.rmtree(logger.artifacts)
    logger.publish()
    assert files(logger.artifacts) == files(logger.folder)


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_into_dvcs_cache_is_replaced_and_not_written_to(
    logger: EpochLogger, tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    cached = tmp_path / "cached"
    cached.write_text("of an earlier run")
    os.utime(cached, (0, 0))
    logger.artifacts.mkdir()
    link(cached, logger.artifacts / "history.csv")
    logger.log_epoch(HISTORY[:1])
    assert (logger.artifacts / "history.csv").read_text().startswith("seed,epoch")
    assert cached.read_text() == "of an earlier run"


def test_other_files_in_the_artifacts_stay(logger: EpochLogger) -> None:
    logger.artifacts.mkdir()
    (logger.artifacts / "vocabulary.json").write_text("{}")
    logger.log_epoch(HISTORY[:1])
    assert (logger.artifacts / "vocabulary.json").read_text() == "{}"


def test_every_epochs_model_can_be_kept_and_loaded(logger: EpochLogger, decoder: Decoder) -> None:
    logger = replace(logger, keep_every_epoch=True, sample_photos={})
    first = decoder.network.get_weights()
    logger.log_epoch(HISTORY[:1])
    decoder.network.set_weights([2 * weight for weight in first])
    try:
        logger.log_epoch(HISTORY[:2])
    finally:
        decoder.network.set_weights(first)
    epochs = logger.artifacts / "model" / "epochs" / "seed_7"
    assert sorted(path.name for path in epochs.iterdir()) == ["epoch_001", "epoch_002"]
    for scale, folder in ((1, "epoch_001"), (2, "epoch_002")):
        loaded = Model.load(epochs / folder, logger.vocabulary)
        assert loaded.config.feature_spec == logger.store.feature_spec
        assert loaded.config.metadata == {"captions": "these"}
        (member,) = loaded.config.members
        assert member.metadata["best"] == asdict(HISTORY[scale - 1])
        weights = loaded.decoders[0].network.get_weights()
        for weight, first_weight in zip(weights, first, strict=True):
            np.testing.assert_array_equal(weight, scale * first_weight)


class TensorBoardSpy:
    """Records what would be written for TensorBoard."""

    def __init__(self) -> None:
        self.written: list[tuple[int, dict[str, float]]] = []

    def write_scalars(self, step: int, _: float, values: dict[str, float]) -> None:
        self.written.append((step, values))


def test_losses_are_written_for_tensorboard(logger: EpochLogger) -> None:
    tensorboard: Any = TensorBoardSpy()
    logger = replace(logger, tensorboard=tensorboard, sample_photos={})
    logger.log_epoch(HISTORY[:1])
    logger.log_epoch(HISTORY[:2])
    assert tensorboard.written == [
        (1, {"loss": 3.25, "validation_loss": 3.5, "validation_cider_d": 0.0}),
        (2, {"loss": 2.125, "validation_loss": 2.75, "validation_cider_d": 8.5}),
    ]
