"""Stage `train`: decoders, from cached features only."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.backend import keras
from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.decoders.openvino import load_compiled
from pipeline.captioner.model_config import DecoderConfig
from pipeline.captioner.model_folder import Model
from pipeline.captioner.training.checkpoint import Checkpoint, remove_abandoned_checkpoints
from pipeline.captioner.training.cross_entropy import CrossEntropy
from pipeline.captioner.training.epoch_logger import EpochLogger
from pipeline.captioner.training.history import EpochRow, SelfCriticalEpoch, write_history
from pipeline.captioner.training.optimizer import OptimizerConfig
from pipeline.captioner.training.samples import choose
from pipeline.captioner.training.self_critical import SelfCritical
from pipeline.captioner.training.tensorboard import TensorBoard
from pipeline.captioner.training.trainer import (
    CROSS_ENTROPY,
    SELF_CRITICAL,
    Lesson,
    SelfCriticalConfig,
    TrainConfig,
    Trainer,
    TrainingData,
    TrainResult,
    epochs_of,
)
from pipeline.datasets import formats
from pipeline.datasets.caption_table import CaptionTable, read_caption_table
from pipeline.features.store import FeatureStore
from pipeline.files import fingerprint, sha256_file, sole_writer
from pipeline.params import Params, load_params
from pipeline.stages.run import run_stage
from pipeline.storage import openvino_graphs
from pipeline.text.vocabulary import Vocabulary

ARTIFACTS = Path("artifacts")
LOGS = Path("runs")
# Packages whose code can change what a training comes to.
_DECIDING = ("captioner", "captions", "features", "scoring")


def main() -> None:
    """Write artifacts/model/, history.csv, self_critical.csv and samples/."""
    params = load_params()
    table = read_caption_table(ARTIFACTS / "captions.parquet")
    material = _read_material(table)
    with sole_writer(Path(params.runtime.cache) / "training", "training"), ExitStack() as stack:
        curriculum = Trainer(
            material,
            _teaching(params, material),
            _criticism(params),
            checkpoint=partial(_checkpoint, params, table, material),
            on_phase_start=partial(_attend, params, table, material, stack),
        )
        apprentices = curriculum.train(params.train.seeds)
        # Also those without rows: DVC wants every output.
        write_history(ARTIFACTS / f"{CROSS_ENTROPY}.csv", epochs_of(apprentices, CrossEntropy))
        criticized = epochs_of(apprentices, SelfCritical)
        write_history(ARTIFACTS / f"{SELF_CRITICAL}.csv", criticized, SelfCriticalEpoch)
        _save(apprentices, material, _facts(params, table, material))
        whole = len(apprentices) == len(params.train.seeds)
        if not whole or any(apprentice.interrupted for apprentice in apprentices.values()):
            print("to go on from here later: dvc repro --force --single-item train")
            return
        for apprentice in apprentices.values():
            apprentice.remove_checkpoints()
        remove_abandoned_checkpoints(Path(params.runtime.cache))


def _read_material(table: CaptionTable) -> TrainingData:
    """Read what the earlier stages left and check that it belongs together."""
    vocabulary = Vocabulary.load(ARTIFACTS / "vocabulary.json", table.fingerprint)
    store = FeatureStore.open(ARTIFACTS / "features.h5")
    splits = ("train", "dev")
    references = {split: table.references(split) for split in splits}
    return TrainingData(
        store,
        vocabulary,
        {split: store.usable(table.captions(split), split) for split in splits},
        {s: {i: g for i, g in references[s].items() if i in store.rows} for s in splits},
    )


def _teaching(params: Params, material: TrainingData) -> TrainConfig:
    wanted = params.train
    return TrainConfig(
        decoder=DecoderConfig(
            name=wanted.decoder,
            vocabulary_size=len(material.vocabulary),
            feature_shape=material.store.shape,
            embedding_size=wanted.embedding_size,
            units=wanted.units,
            dropout=wanted.dropout,
            output_dropout=wanted.output_dropout,
            tied_embeddings=wanted.tied_embeddings,
            feature_norm=wanted.feature_norm,
            feature_noise=wanted.feature_noise,
            spatial_residual_size=wanted.spatial_residual_size,
        ),
        optimization=OptimizerConfig(
            wanted.learning_rate, wanted.schedule, wanted.weight_decay, wanted.clip_norm
        ),
        word_vectors=wanted.word_vectors,
        output_bias=wanted.output_bias,
        batch_size=wanted.batch_size,
        max_words=wanted.max_words,
        label_smoothing=wanted.label_smoothing,
        condition_dropout=wanted.condition_dropout,
        scheduled_sampling=wanted.scheduled_sampling,
        epochs=wanted.epochs,
        patience=wanted.patience,
        select=wanted.select,
        select_tolerance=wanted.select_tolerance,
        average_epochs=wanted.average_epochs,
        select_beam_width=wanted.select_beam_width,
    )


def _criticism(params: Params) -> SelfCriticalConfig | None:
    wanted = params.self_critical
    return SelfCriticalConfig(**wanted.model_dump()) if wanted.epochs else None


def _facts(params: Params, table: CaptionTable, material: TrainingData) -> dict[str, Any]:
    """Return what is the same for all decoders, for model.json."""
    return {
        "params": params.train.model_dump(),
        "self_critical": params.self_critical.model_dump() if params.self_critical.epochs else None,
        "captions": table.fingerprint,
        "features": material.store.fingerprint,
    }


def _checkpoint(
    params: Params, table: CaptionTable, material: TrainingData, phase: str, seed: int
) -> Checkpoint:
    """Name a checkpoint by all that decides its training, but not by the other seeds."""
    rooms = Path(__file__).parent.parent
    code = [path for room in _DECIDING for path in sorted(rooms.glob(f"{room}/*.py"))]
    decides = [
        [params.train.model_dump(exclude={"seeds"}), phase, seed],
        params.self_critical.model_dump() if phase == SELF_CRITICAL else None,
        table.fingerprint,
        material.vocabulary.fingerprint,
        material.store.fingerprint,
        [sha256_file(path) for path in code],
        [keras.__version__, keras.config.backend()],
    ]
    return Checkpoint(Path(params.runtime.cache), fingerprint(decides))


def _attend(
    params: Params, table: CaptionTable, material: TrainingData, stack: ExitStack, lesson: Lesson
) -> Callable[[Sequence[EpochRow]], None]:
    """Open the diary of a lesson."""
    taught = lesson.phase == CROSS_ENTROPY
    if len(params.train.seeds) > 1:
        print(f"seed {lesson.seed}{'' if taught else ', second phase'}", flush=True)
    folder = _checkpoint(params, table, material, lesson.phase, lesson.seed).folder
    board = None
    if params.runtime.tensorboard:
        board = stack.enter_context(TensorBoard(LOGS / folder.name))
    diary = EpochLogger(
        folder=folder / "diary",
        artifacts=ARTIFACTS,
        name=lesson.phase,
        seed=lesson.seed,
        earlier=lesson.earlier,
        decoder=lesson.decoder,
        vocabulary=material.vocabulary,
        store=material.store,
        samples=_samples(params, material) if taught else {},
        max_words=params.train.max_words,
        keep_every_epoch=params.train.keep_every_epoch and taught,
        facts=_facts(params, table, material),
        tensorboard=board,
    )
    # What a training that was killed had written: it may have nothing to add.
    diary.publish()
    return diary.write


def _samples(params: Params, material: TrainingData) -> Mapping[str, Path | None]:
    photos = formats.photos_left(params.dataset.format, Path(params.dataset.root))
    dev = list(material.references["dev"])
    chosen = choose(dev, params.train.sample_photos, params.train.seeds[0])
    return {image_id: photos.get(image_id) for image_id in chosen}


def _save(
    apprentices: Mapping[int, TrainResult], material: TrainingData, facts: dict[str, Any]
) -> None:
    model = Model.of(
        {seed: (apprentice.decoder, apprentice.facts) for seed, apprentice in apprentices.items()},
        material.store.feature_spec,
        material.vocabulary.fingerprint,
        facts,
    )
    model.save(ARTIFACTS / "model")
    if openvino_graphs.is_enabled(ARTIFACTS):
        # Now, with the decoders at hand, so that the first `caption image` need not.
        for decoder, member in zip(model.decoders, model.description.members, strict=True):
            load_compiled(ARTIFACTS, model.description, member, partial(_same, decoder))


def _same(decoder: Decoder) -> Decoder:
    return decoder


if __name__ == "__main__":
    run_stage(main)
