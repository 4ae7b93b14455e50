"""The diary of trainings: history, samples, and weights and logs if asked, epoch by epoch."""

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
from pipeline.captioner.training.tensorboard import TensorBoard
from pipeline.features.store import FeatureStore
from pipeline.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class EpochLogger:
    """Writes down every epoch of the training from one seed.

    All of it is written beside the checkpoint and copied from there into the artefacts:
    DVC deletes a stage's outputs before a killed training goes on.

    Attributes:
        folder: beside the checkpoint.
        artifacts: the folder to show it in, as the table, samples/ and model/epochs/.
        table: file name of the table of epochs.
        seed: of the training.
        earlier: epochs of trainings from other seeds, with their seeds; they stay in the table.
        decoder: in training.
        vocabulary: of the decoder.
        store: features of the sample photos.
        samples: dev photos to caption: image_id to file, which may be gone.
        max_words: a sample's words, at most.
        keep_every_epoch: whether to keep each epoch's model.
        metadata: of it, what is the same for all, see `ModelConfig`.
        tensorboard: TensorBoard logs, if asked.
    """

    folder: Path
    artifacts: Path
    table: str
    seed: int
    earlier: Sequence[tuple[int, EpochRow]]
    decoder: Decoder
    vocabulary: Vocabulary
    store: FeatureStore
    samples: Mapping[str, Path | None]
    max_words: int
    keep_every_epoch: bool
    metadata: Mapping[str, Any]
    tensorboard: TensorBoard | None

    def write(self, history: Sequence[EpochRow]) -> None:
        """Write down the last epoch of `history` and show it all."""
        epoch = history[-1]
        name = f"epoch_{epoch.epoch:03d}"
        rows = [*self.earlier, *((self.seed, row) for row in history)]
        write_history(self.folder / self.table, rows)
        if self.samples:
            captions = self._captions()
            folder = self.folder / "samples" / f"seed_{self.seed}"
            write_text_sample(folder / f"{name}.txt", captions)
            title = f"epoch {epoch.epoch}, validation loss {epoch.validation_loss:.3f}"
            write_contact_sheet(folder / f"{name}.png", self.samples, captions, title)
        if self.keep_every_epoch:
            of = self.store.feature_spec, self.vocabulary.fingerprint
            how = {"epochs": epoch.epoch, "best": asdict(epoch), "stopped": "an epoch of several"}
            model = Model.of({self.seed: (self.decoder, how)}, *of, metadata=dict(self.metadata))
            model.save(self.folder / "model" / "epochs" / f"seed_{self.seed}" / name)
        if self.tensorboard is not None:
            values = {name: value for name, value in asdict(epoch).items() if name != "epoch"}
            self.tensorboard.scalars(epoch.epoch, time.time(), values)
        self.publish()

    def publish(self) -> None:
        """Copy what is new since the last time into the artefacts."""
        if not self.folder.is_dir():
            return
        shutil.copytree(
            self.folder,
            self.artifacts,
            # What a kill left half written is nobody's.
            ignore=shutil.ignore_patterns(".tmp-*"),
            copy_function=_copy_if_newer,
            dirs_exist_ok=True,
        )

    def _captions(self) -> dict[str, str]:
        features = self.store.read(self.samples)
        found = search(self.decoder, features, beam_width=1, max_words=self.max_words)
        return {
            image_id: self.vocabulary.decode(hypotheses[0].ids)
            for image_id, hypotheses in zip(self.samples, found, strict=True)
        }


def _copy_if_newer(source: str, target: str) -> None:
    there = Path(target)
    if not there.exists() or there.stat().st_mtime_ns < Path(source).stat().st_mtime_ns:
        shutil.copy2(source, target)
