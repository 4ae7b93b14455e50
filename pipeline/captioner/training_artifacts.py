"""The artifacts that decoders and the word detector are trained from.

They are separate from `artifacts.Artifacts`, which adds the outputs of training, so that the
stages that train do not depend on the code that reads their own outputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from pipeline.datasets.caption_table import CaptionTable, read_caption_table
from pipeline.datasets.splits import MIN_PHOTOS_PER_SPLIT
from pipeline.errors import InputError, one_line
from pipeline.features.store import FeatureStore
from pipeline.files import read_texts
from pipeline.text.vocabulary import Vocabulary

# The stage that writes each file.
STAGES = {
    "captions.json": "clean",
    "captions.parquet": "clean",
    "encoder.json": "encoder",
    "encoder.weights.h5": "encoder",
    "features.h5": "extract",
    "extract.json": "extract",
    "vocabulary.json": "tokenize",
    "detector.h5": "detector",
    "neighbours.h5": "detector",
    "model/model.json": "train",
    "search.json": "evaluate",
}
_MAX_LISTED = 3  # failed photos in a message


@dataclass(frozen=True)
class TrainingArtifacts:
    """The folder that the stages write to; each file is opened once, when it is first used.

    Attributes:
        folder: the folder's absolute path.
    """

    folder: Path

    @classmethod
    def open(cls, folder: Path, *required: str) -> Self:
        """Open the folder after checking that it has the required files.

        Args:
            folder: artifacts/, or a copy of it.
            required: keys of `STAGES`.

        Raises:
            InputError: files are missing; the message names all of them and the stages that
                write them.
        """
        folder = folder.absolute()
        missing = [name for name in required if not (folder / name).is_file()]
        if missing:
            stages = " ".join(dict.fromkeys(STAGES[name] for name in missing))
            raise InputError(
                f"{folder} has no {', '.join(missing)}: run `dvc repro {stages}`, in a clone "
                "`dvc pull`, or name the folder of a finished run"
            )
        return cls(folder)

    @cached_property
    def table(self) -> CaptionTable:
        """The captions of all splits."""
        return read_caption_table(self.folder / "captions.parquet")

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary, checked against the captions."""
        return Vocabulary.load(self.folder / "vocabulary.json", self.table.fingerprint)

    @cached_property
    def store(self) -> FeatureStore:
        """The photos' features."""
        return FeatureStore.open(self.folder / "features.h5")

    @cached_property
    def image_paths(self) -> Mapping[str, Path]:
        """image_id to the photo's file when `extract` ran; it may no longer exist."""
        path, fix = self.folder / "extract.json", "run `dvc repro extract`"
        paths = read_texts(path, "paths", fix)
        return {image_id: Path(name) for image_id, name in paths.items()}

    def captions(self, split: str) -> list[tuple[str, str]]:
        """Return the (image_id, clean text) pairs of a split's photos that have features.

        Prints which photos and how many captions are left out for want of features.

        Raises:
            InputError: fewer photos than `MIN_PHOTOS_PER_SPLIT` have features.
        """
        captions = self.table.captions(split)
        usable = [pair for pair in captions if pair[0] in self.store.rows]
        if len({image_id for image_id, _ in usable}) < MIN_PHOTOS_PER_SPLIT:
            raise InputError(
                f"fewer than {MIN_PHOTOS_PER_SPLIT} {split} photos have both captions and "
                f"features: {self.folder / 'captions.json'} and {self.folder / 'extract.json'} "
                "list the reasons"
            )
        failed = sorted({image_id for image_id, _ in captions} - self.store.rows.keys())
        if failed:
            listed = ", ".join(map(one_line, failed[:_MAX_LISTED]))
            n_more = len(failed) - _MAX_LISTED
            print(
                f"{split}: {len(captions) - len(usable)} captions of failed photos left out "
                f"({listed}{f' and {n_more} more' if n_more > 0 else ''}): "
                f"{self.folder.name}/extract.json lists the reasons"
            )
        return usable

    def references(self, split: str) -> dict[str, list[str]]:
        """Return image_id to raw captions for a split's photos that have features."""
        references = self.table.references(split)
        return {
            image_id: raw for image_id, raw in references.items() if image_id in self.store.rows
        }
