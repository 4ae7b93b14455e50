"""Stage `train`: train decoders, one per seed, from cached features."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.backend import keras
from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.decoders.openvino import load_openvino_decoder
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
    AfterEpoch,
    SelfCriticalConfig,
    TrainConfig,
    Trainer,
    TrainingData,
    TrainResult,
    epochs_of,
)
from pipeline.captioner.training_artifacts import TrainingArtifacts
from pipeline.files import fingerprint, sha256_file, sole_writer
from pipeline.params import Params, load_params
from pipeline.stages.run import run_stage
from pipeline.storage import openvino_graphs

ARTIFACTS = Path("artifacts")
LOGS = Path("runs")
# The tables of the phases' epochs.
TABLES = {CROSS_ENTROPY: "history.csv", SELF_CRITICAL: "self_critical.csv"}
# Rooms whose code can change the result of a training.
_ROOMS = ("captioner", "features", "metrics", "storage", "text")


def main() -> None:
    """Write artifacts/model/, history.csv, self_critical.csv and samples/."""
    params = load_params()
    artifacts = TrainingArtifacts.open(
        ARTIFACTS, "captions.parquet", "vocabulary.json", "features.h5"
    )
    cache = Path(params.runtime.cache)
    with sole_writer(cache / "training", "training"), ExitStack() as stack:
        run = _Run(params, artifacts, _training_data(artifacts), stack)
        results = run.trainer().train(params.train.seeds)
        # The second table is written even without rows: DVC needs every output.
        write_history(ARTIFACTS / TABLES[CROSS_ENTROPY], epochs_of(results, CrossEntropy))
        write_history(
            ARTIFACTS / TABLES[SELF_CRITICAL], epochs_of(results, SelfCritical), SelfCriticalEpoch
        )
        run.save(results)
        complete = len(results) == len(params.train.seeds)
        if not complete or any(result.interrupted for result in results.values()):
            print("to resume from here later: dvc repro --force --single-item train")
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
class _Run:
    """One run of the stage: what the trainer needs to know of params and artefacts."""

    params: Params
    artifacts: TrainingArtifacts
    data: TrainingData
    stack: ExitStack

    def trainer(self) -> Trainer:
        second = self.params.self_critical
        return Trainer(
            self.data,
            _train_config(self.params, self.data),
            SelfCriticalConfig(**second.model_dump()) if second.epochs else None,
            self.checkpoint,
            self.start_logging,
        )

    def checkpoint(self, phase: str, seed: int) -> Checkpoint:
        """Name a checkpoint by everything that decides its training, the other seeds excluded."""
        package = Path(__file__).parent.parent
        code = [path for room in _ROOMS for path in sorted((package / room).rglob("*.py"))]
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
        self, phase: str, seed: int, decoder: Decoder, earlier: Sequence[tuple[int, EpochRow]]
    ) -> AfterEpoch:
        """Start logging a phase's epochs."""
        first = phase == CROSS_ENTROPY
        if len(self.params.train.seeds) > 1:
            print(f"seed {seed}{'' if first else ', self-critical phase'}", flush=True)
        folder = self.checkpoint(phase, seed).folder
        tensorboard = None
        if self.params.runtime.tensorboard:
            tensorboard = self.stack.enter_context(TensorBoard(LOGS / folder.name))
        logger = EpochLogger(
            folder=folder / "log",
            artifacts=ARTIFACTS,
            table=TABLES[phase],
            seed=seed,
            earlier=earlier,
            decoder=decoder,
            vocabulary=self.data.vocabulary,
            store=self.data.store,
            samples=self.sample_photos() if first else {},
            max_words=self.params.train.max_words,
            keep_every_epoch=self.params.train.keep_every_epoch and first,
            metadata=self.metadata(),
            tensorboard=tensorboard,
        )
        # Shows what a killed training had logged; a resumed one may have no epoch to add.
        logger.publish()
        return logger.write

    def sample_photos(self) -> Mapping[str, Path | None]:
        params, dev = self.params.train, list(self.data.references["dev"])
        if not params.sample_photos:
            return {}
        paths = self.artifacts.image_paths
        image_ids = choose(dev, params.sample_photos, params.seeds[0])
        return {image_id: paths.get(image_id) for image_id in image_ids}

    def metadata(self) -> dict[str, Any]:
        """Return what is the same for all decoders, for model.json."""
        second = self.params.self_critical
        return {
            "params": self.params.train.model_dump(),
            "self_critical": second.model_dump() if second.epochs else None,
            "captions": self.artifacts.table.fingerprint,
            "features": self.data.store.fingerprint,
        }

    def save(self, results: Mapping[int, TrainResult]) -> None:
        model = Model.of(
            {seed: (result.decoder, result.metadata) for seed, result in results.items()},
            self.data.store.encoding,
            self.data.vocabulary.fingerprint,
            self.metadata(),
        )
        model.save(ARTIFACTS / "model")
        if openvino_graphs.in_use(ARTIFACTS):
            # Now, while the decoders are in memory, so that the first `caption image` need not.
            for decoder, member in zip(model.decoders, model.description.members, strict=True):
                load_openvino_decoder(ARTIFACTS, model.description, member, _returning(decoder))


def _returning(decoder: Decoder) -> Any:
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
