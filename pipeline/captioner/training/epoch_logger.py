"""The epoch logger: history, sample captions and, where configured, weights and TensorBoard."""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.captioner.decoders.decoder import Decoder
from pipeline.captioner.generation.beam_search import search
from pipeline.captioner.model_folder import Model
from pipeline.captioner.training.history import EpochRow, write_history
from pipeline.captioner.training.samples import write_contact_sheet, write_text_sample
from pipeline.captioner.training.tensorboard import TensorBoardWriter
from pipeline.features.store import FeatureStore
from pipeline.files import atomic_path
from pipeline.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class EpochLogger:
    """Logs every epoch of the training from one seed.

    Everything is written next to the checkpoint and copied from there into the artifacts,
    because DVC deletes a stage's outputs before a killed training resumes.

    Attributes:
        folder: where to write, next to the checkpoint.
        artifacts: where to publish: the history, samples/ and model/epochs/.
        history_file: file name of the history.
        seed: seed of this training.
        earlier_epochs: epochs of trainings from other seeds, with their seeds; they stay in the
            history.
        decoder: the decoder in training.
        vocabulary: the decoder's vocabulary.
        store: features of the sample photos.
        sample_photos: dev photos to caption: image_id to file, which may no longer exist.
        max_words: maximum number of words of a sample caption.
        keep_every_epoch: whether to keep each epoch's model.
        metadata: for these models, see `ModelConfig`.
        tensorboard: writer of TensorBoard logs, or None.
    """

    folder: Path
    artifacts: Path
    history_file: str
    seed: int
    earlier_epochs: Sequence[tuple[int, EpochRow]]
    decoder: Decoder
    vocabulary: Vocabulary
    store: FeatureStore
    sample_photos: Mapping[str, Path | None]
    max_words: int
    keep_every_epoch: bool
    metadata: Mapping[str, Any]
    tensorboard: TensorBoardWriter | None

    def log_epoch(self, history: Sequence[EpochRow]) -> None:
        """Log the last epoch of `history` and publish everything."""
        epoch = history[-1]
        name = f"epoch_{epoch.epoch:03d}"
        rows = [*self.earlier_epochs, *((self.seed, row) for row in history)]
        write_history(self.folder / self.history_file, rows)
        if self.sample_photos:
            self._write_samples(name, epoch)
        if self.keep_every_epoch:
            self._save_model(name, epoch)
        if self.tensorboard is not None:
            values = {name: value for name, value in asdict(epoch).items() if name != "epoch"}
            self.tensorboard.write_scalars(epoch.epoch, time.time(), values)
        self.publish()

    def publish(self) -> None:
        """Copy files that are new since the last call into the artifacts."""
        if not self.folder.is_dir():
            return
        shutil.copytree(
            self.folder,
            self.artifacts,
            ignore=shutil.ignore_patterns(".tmp-*"),  # unfinished files of a killed run
            copy_function=_copy_if_newer,
            dirs_exist_ok=True,
        )

    def _write_samples(self, name: str, epoch: EpochRow) -> None:
        features = self.store.read(self.sample_photos)
        results = search(self.decoder, features, beam_width=1, max_words=self.max_words)
        captions = {
            image_id: self.vocabulary.decode(hypotheses[0].ids)
            for image_id, hypotheses in zip(self.sample_photos, results, strict=True)
        }
        folder = self.folder / "samples" / f"seed_{self.seed}"
        write_text_sample(folder / f"{name}.txt", captions)
        title = f"epoch {epoch.epoch}, validation loss {epoch.validation_loss:.3f}"
        write_contact_sheet(folder / f"{name}.png", self.sample_photos, captions, title)

    def _save_model(self, name: str, epoch: EpochRow) -> None:
        training = {
            "epochs": epoch.epoch,
            "best": asdict(epoch),
            "stopped": "an intermediate epoch",
        }
        model = Model.from_decoders(
            {self.seed: (self.decoder, training)},
            self.store.feature_spec,
            self.vocabulary.fingerprint,
            dict(self.metadata),
        )
        model.save(self.folder / "model" / "epochs" / f"seed_{self.seed}" / name)


def _copy_if_newer(source: str, destination: str) -> None:
    existing = Path(destination)
    if not existing.exists() or existing.stat().st_mtime_ns < Path(source).stat().st_mtime_ns:
        # Replaced, not written to: it may be a link into DVC's cache.
        with atomic_path(existing) as temporary:
            shutil.copy2(source, temporary)
