"""Stage `train`: train decoders, one per seed, from cached features."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.backend import has_accelerator, keras
from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.decoders.openvino import load_openvino_decoder
from pipeline.captioner.model_config import DecoderConfig
from pipeline.captioner.model_folder import Model
from pipeline.captioner.training.checkpoint import Checkpoint, remove_abandoned_checkpoints
from pipeline.captioner.training.cross_entropy import CrossEntropy
from pipeline.captioner.training.epoch_logger import EpochLogger
from pipeline.captioner.training.history import EpochRow, SelfCriticalEpoch, write_history
from pipeline.captioner.training.optimizer import OptimizerConfig
from pipeline.captioner.training.samples import choose_sample_photos
from pipeline.captioner.training.self_critical import SelfCritical
from pipeline.captioner.training.tensorboard import TensorBoardWriter
from pipeline.captioner.training.trainer import (
    CROSS_ENTROPY,
    SELF_CRITICAL,
    EpochCallback,
    SelfCriticalConfig,
    TrainConfig,
    Trainer,
    TrainingData,
    TrainResult,
    phase_history,
)
from pipeline.captioner.training_artifacts import TrainingArtifacts
from pipeline.files import fingerprint, remove_temporary_files, sha256_file, sole_writer
from pipeline.params import Params, load_params
from pipeline.stages.run import run_stage
from pipeline.storage import openvino_graphs
from pipeline.system.memory import check_memory
from pipeline.system.software import software

ARTIFACTS = Path("artifacts")
TENSORBOARD_LOGS = Path("runs")
# The file with each phase's history.
HISTORY_FILES = {CROSS_ENTROPY: "history.csv", SELF_CRITICAL: "self_critical.csv"}
# Packages whose code can change the result of a training.
_CODE = ("captioner", "features", "metrics", "storage", "text")


def main() -> None:
    """Write artifacts/model/, history.csv, self_critical.csv and samples/."""
    artifacts = TrainingArtifacts.open(
        ARTIFACTS, "captions.parquet", "vocabulary.json", "features.h5"
    )
    params = load_params(training_captions=len(artifacts.table.texts("train")))
    cache = Path(params.runtime.cache)
    with (
        sole_writer(ARTIFACTS, "training", ".train.lock", alternative=""),
        # Experiments that run at the same time may share the cache.
        sole_writer(cache / "training", "training", wait=True),
        ExitStack() as stack,
    ):
        for name in HISTORY_FILES.values():
            remove_temporary_files(ARTIFACTS, name)
        run = _TrainRun(params, artifacts, _training_data(artifacts), stack)
        results = run.trainer().train(params.train.seeds)
        run.save(results)
        complete = len(results) == len(params.train.seeds)
        if not complete or any(result.interrupted for result in results.values()):
            print("to resume later: dvc repro --force --single-item train")
            return
        for result in results.values():
            result.remove_checkpoints()
        remove_abandoned_checkpoints(cache)


def _training_data(artifacts: TrainingArtifacts) -> TrainingData:
    splits = ("train", "dev")
    return TrainingData(
        artifacts.store,
        artifacts.vocabulary,
        {split: artifacts.captions(split) for split in splits},
        {split: artifacts.references(split) for split in splits},
    )


@dataclass(frozen=True)
class _TrainRun:
    """One run of the stage: provides what the trainer needs, from params and artifacts."""

    params: Params
    artifacts: TrainingArtifacts
    data: TrainingData
    stack: ExitStack

    def trainer(self) -> Trainer:
        self_critical, config = self.params.self_critical, _train_config(self.params, self.data)
        check_memory(
            config.memory(len(self.data.captions["train"])),
            f"the training of a decoder with train.units {config.decoder.units}, "
            f"train.embedding_size {config.decoder.embedding_size} and train.batch_size "
            f"{config.batch_size}",
            "lower the largest of them",
        )
        return Trainer(
            self.data,
            config,
            SelfCriticalConfig(**self_critical.model_dump()) if self_critical.epochs else None,
            self.checkpoint,
            self.start_logging,
        )

    def checkpoint(self, phase: str, seed: int) -> Checkpoint:
        """Return the checkpoint named by everything that determines this phase's result.

        The other seeds are not part of it.
        """
        package = Path(__file__).parent.parent
        code = [path for name in _CODE for path in sorted((package / name).rglob("*.py"))]
        second = self.params.self_critical.model_dump() if phase == SELF_CRITICAL else None
        identity = [
            [self.params.train.model_dump(exclude={"seeds"}), phase, seed],
            second,
            self.artifacts.table.fingerprint,
            self.data.vocabulary.fingerprint,
            self.data.store.fingerprint,
            [sha256_file(path) for path in code],
            [keras.__version__, keras.config.backend()],
        ]
        return Checkpoint(Path(self.params.runtime.cache), fingerprint(identity))

    def start_logging(
        self,
        phase: str,
        seed: int,
        decoder: Decoder,
        earlier_epochs: Sequence[tuple[int, EpochRow]],
    ) -> EpochCallback:
        """Start logging a phase; return the function that logs an epoch."""
        is_first_phase = phase == CROSS_ENTROPY
        if len(self.params.train.seeds) > 1:
            print(f"seed {seed}{'' if is_first_phase else ', self-critical phase'}", flush=True)
        folder = self.checkpoint(phase, seed).folder
        tensorboard = None
        if self.params.runtime.tensorboard:
            writer = TensorBoardWriter(TENSORBOARD_LOGS / folder.name)
            tensorboard = self.stack.enter_context(writer)
        logger = EpochLogger(
            folder=folder / "log",
            artifacts=ARTIFACTS,
            history_file=HISTORY_FILES[phase],
            seed=seed,
            earlier_epochs=earlier_epochs,
            decoder=decoder,
            vocabulary=self.data.vocabulary,
            store=self.data.store,
            sample_photos=self.sample_photos() if is_first_phase else {},
            max_words=self.params.train.max_words,
            keep_every_epoch=self.params.train.keep_every_epoch and is_first_phase,
            metadata=self.metadata(),
            tensorboard=tensorboard,
        )
        # Publish the log of a killed training: a resumed one may have no epoch left to log.
        logger.publish()
        return logger.log_epoch

    def sample_photos(self) -> Mapping[str, Path | None]:
        """Return the files of the dev photos to caption after each epoch, by image_id."""
        params, dev = self.params.train, list(self.data.references["dev"])
        if not params.sample_photos:
            return {}
        paths = self.artifacts.image_paths
        image_ids = choose_sample_photos(dev, params.sample_photos, params.seeds[0])
        return {image_id: paths.get(image_id) for image_id in image_ids}

    def metadata(self) -> dict[str, Any]:
        """Return the metadata for model.json that all decoders have in common."""
        self_critical = self.params.self_critical
        return {
            "params": self.params.train.model_dump(),
            "self_critical": self_critical.model_dump() if self_critical.epochs else None,
            "captions": self.artifacts.table.fingerprint,
            "features": self.data.store.fingerprint,
            "software": software(accelerated=has_accelerator()),
        }

    def save(self, results: Mapping[int, TrainResult]) -> None:
        """Write the histories and the model."""
        write_history(
            ARTIFACTS / HISTORY_FILES[CROSS_ENTROPY], phase_history(results, CrossEntropy)
        )
        # Written even without rows: DVC requires every output of a stage.
        write_history(
            ARTIFACTS / HISTORY_FILES[SELF_CRITICAL],
            phase_history(results, SelfCritical),
            SelfCriticalEpoch,
        )
        model = Model.from_decoders(
            {seed: (result.decoder, result.metadata) for seed, result in results.items()},
            self.data.store.feature_spec,
            self.data.vocabulary.fingerprint,
            self.metadata(),
        )
        model.save(ARTIFACTS / "model")
        if openvino_graphs.is_enabled(ARTIFACTS):
            # Converted here, while the decoders are in memory, so that the first `caption image`
            # need not do it.
            for decoder, member in zip(model.decoders, model.config.members, strict=True):
                load_openvino_decoder(ARTIFACTS, model.config, member, _always(decoder))


def _always(decoder: Decoder) -> Callable[[], Decoder]:
    return lambda: decoder


def _train_config(params: Params, data: TrainingData) -> TrainConfig:
    train = params.train
    return TrainConfig(
        decoder=DecoderConfig(
            name=train.decoder,
            vocabulary_size=len(data.vocabulary),
            feature_shape=data.store.shape,
            embedding_size=train.embedding_size,
            units=train.units,
            dropout=train.dropout,
            output_dropout=train.output_dropout,
            tied_embeddings=train.tied_embeddings,
            feature_norm=train.feature_norm,
            feature_noise=train.feature_noise,
            spatial_residual_size=train.spatial_residual_size,
        ),
        optimizer=OptimizerConfig(
            train.learning_rate, train.schedule, train.weight_decay, train.clip_norm
        ),
        word_vectors=train.word_vectors,
        output_bias=train.output_bias,
        batch_size=train.batch_size,
        max_words=train.max_words,
        label_smoothing=train.label_smoothing,
        condition_dropout=train.condition_dropout,
        scheduled_sampling=train.scheduled_sampling,
        epochs=train.epochs,
        patience=train.patience,
        select=train.select,
        select_tolerance=train.select_tolerance,
        average_epochs=train.average_epochs,
        select_beam_width=train.select_beam_width,
    )


if __name__ == "__main__":
    run_stage(main)
