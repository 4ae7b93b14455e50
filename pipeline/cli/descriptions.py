"""Descriptions of artefacts, for `caption inspect`: each file is checked as the stages check it."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline.captioner.artifacts import Artifacts
from pipeline.datasets.caption_table import read_caption_table
from pipeline.errors import InputError
from pipeline.features.store import FeatureStore
from pipeline.text.vocabulary import Vocabulary

_N_WORDS = 8  # words of the vocabulary that are shown


@dataclass(frozen=True)
class Description:
    """What is in an artefact.

    Attributes:
        verdict: what was checked, a word or a phrase.
        properties: name to value.
        failed: image_id to the reason, for the photos that failed.
    """

    verdict: str
    properties: dict[str, object]
    failed: dict[str, str] = field(default_factory=dict)


def describe(path: Path) -> Description:
    """Check an artefact and describe it.

    Raises:
        InputError: it is absent, damaged, or none that can be described.
    """
    if path.is_dir() and (path / "model.json").is_file():
        path /= "model.json"
    reader = _READERS.get(path.name) or _READERS.get(path.suffix.lower())
    if not path.exists():
        raise InputError(f"{path} is not there: give {_CHOICES}")
    if reader is None or not path.is_file():
        raise InputError(f"{path} is nothing that inspect reads: give {_CHOICES}")
    return reader(path)


def _describe_hdf5(path: Path) -> Description:
    with path.open("rb") as file:
        is_hdf5 = file.read(len(_HDF5_SIGNATURE)) == _HDF5_SIGNATURE
    if not is_hdf5:
        raise InputError(f"{path} is not an HDF5 file: give {_CHOICES}")
    if path.name.endswith(".weights.h5"):
        raise InputError(
            f"{path} holds a network's weights, which inspect does not read: give {_CHOICES}"
        )
    return _describe_store(path)


def _describe_store(path: Path) -> Description:
    store = FeatureStore.open(path)
    vectors_sha256 = store.verify()
    properties = {
        "photos": f"{len(store.image_ids)}, and {len(store.failed)} that failed",
        "vectors": f"{' x '.join(map(str, store.shape))} numbers a photo",
        **asdict(store.feature_spec),
        "fingerprint": store.fingerprint,
        "vectors' sha256": vectors_sha256,
    }
    return Description("sound", properties, store.failed)


def _describe_detector(path: Path) -> Description:
    artifacts = Artifacts.open(path.parent, "vocabulary.json", "model/model.json", path.name)
    detector = artifacts.detector
    return Description(
        "sound, and fits the vocabulary and the model beside it",
        {
            "words": len(artifacts.vocabulary.words),
            "numbers a photo": len(detector.mean),
            "sha256": detector.digest,
        },
    )


def _describe_neighbours(path: Path) -> Description:
    artifacts = Artifacts.open(
        path.parent, "vocabulary.json", "model/model.json", "detector.h5", path.name
    )
    neighbours = artifacts.neighbours
    return Description(
        "sound, and fits the vocabulary, the detector and the model beside it",
        {
            "photos": len(neighbours.caption_counts),
            "captions": len(neighbours.lengths),
            "numbers a photo": neighbours.coordinates.shape[1],
            "sha256": neighbours.digest,
        },
    )


def _describe_captions(path: Path) -> Description:
    if path.name == "predictions.parquet":
        raise InputError(f"{path} holds a run's captions: score it with `caption score`")
    table = read_caption_table(path)
    properties: dict[str, object] = {}
    for split, rows in table.frame.groupby("split"):
        properties[str(split)] = f"{rows['image_id'].nunique()} photos, {len(rows)} captions"
    lengths = table.frame["n_words"]
    properties["words a caption"] = f"{lengths.min()} to {lengths.max()}, mean {lengths.mean():.1f}"
    for name, value in sorted(table.provenance.items()):
        properties[name] = json.dumps(value) if isinstance(value, dict) else value
    return Description("sound", properties)


def _describe_vocabulary(path: Path) -> Description:
    vocabulary = Vocabulary.load(path)
    n_known = sum(vocabulary.counts)
    unknown_share = vocabulary.unknown_count / max(1, n_known + vocabulary.unknown_count)
    return Description(
        "sound",
        {
            "words": len(vocabulary.words),
            "most frequent": " ".join(vocabulary.words[:_N_WORDS]),
            "rarest": " ".join(vocabulary.words[-_N_WORDS:]),
            "rarest occurs": f"{min(vocabulary.counts, default=0)} times",
            "not in it": f"{unknown_share:.1%} of the training captions' words",
            "fingerprint": vocabulary.fingerprint,
        },
    )


def _describe_model(path: Path) -> Description:
    config = Artifacts.open(path.parent.parent, "vocabulary.json").model_config
    decoder = asdict(config.decoder)
    properties: dict[str, object] = {"decoder": decoder.pop("name"), **decoder}
    for member in config.members:
        epochs, best, stopped = map(member.metadata.get, ("epochs", "best", "stopped"))
        kept = f"epoch {best.get('epoch')}" if isinstance(best, dict) else "an unknown epoch"
        properties[f"seed {member.seed}"] = f"{kept} of {epochs} kept; {stopped}"
    spec = config.feature_spec
    properties["encoder"] = f"{spec.encoder} at {spec.input_size} pixels, {spec.pooling} pooling"
    return Description("fits the vocabulary beside it; its weights were not read", properties)


_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_READERS: dict[str, Callable[[Path], Description]] = {
    "detector.h5": _describe_detector,
    "neighbours.h5": _describe_neighbours,
    "vocabulary.json": _describe_vocabulary,
    "model.json": _describe_model,
    ".parquet": _describe_captions,
    ".h5": _describe_hdf5,
    ".hdf5": _describe_hdf5,
}
_CHOICES = (
    "features.h5, detector.h5, neighbours.h5, captions.parquet, vocabulary.json or the folder "
    "model of a run"
)
