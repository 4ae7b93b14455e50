"""One small sound file of each kind of artefact, drawn without Keras, for the fuzzer."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import openvino
import pandas as pd
from openvino import opset13 as opset

from pipeline.captioner.generation.settings import SearchSettings
from pipeline.captioner.model_config import DecoderConfig, Member, ModelConfig
from pipeline.captioner.neighbours import fit_neighbours
from pipeline.captioner.training.checkpoint import Checkpoint
from pipeline.captioner.training.history import CrossEntropyEpoch, write_history
from pipeline.captioner.word_detector import fit_detector
from pipeline.datasets.annotations import Summary
from pipeline.datasets.caption_table import write_caption_table
from pipeline.features.feature_spec import FORMAT_VERSION, POOLINGS, EncoderConfig
from pipeline.features.shard_cache import ShardCache
from pipeline.files import write_json
from pipeline.storage.openvino_graphs import GraphFile
from pipeline.text.vocabulary import Vocabulary
from tests.conftest import FEATURE_SPEC, encoded, make_photo
from tests.support.store import IDS, vectors, write

TEXTS = ["a dog runs", "a cat sits", "a dog sits on grass", "the cat runs"]


def write_sound_files(folder: Path) -> Mapping[str, list[Path]]:
    """Write the files; return those of each kind of `fuzz_reader.READERS`."""
    vocabulary = Vocabulary.build(TEXTS, 1, "c" * 64)
    vocabulary.save(folder / "vocabulary.json")
    write(folder / "features.h5")
    rows = dict(zip(IDS, vectors(6), strict=True))
    encoded_captions = {i: [vocabulary.encode(TEXTS[n % len(TEXTS)])] for n, i in enumerate(IDS)}

    def read(ids: Iterable[str]) -> npt.NDArray[np.float32]:
        return np.stack([rows[i] for i in ids])

    detector = fit_detector(encoded_captions, read, len(vocabulary), ridge_alpha=0.3)
    detector.save(folder / "detector.h5", vocabulary, FEATURE_SPEC)
    neighbours = fit_neighbours(encoded_captions, read, detector)
    neighbours.save(folder / "neighbours.h5", vocabulary, detector)
    for name in ("features.h5", "detector.h5", "neighbours.h5"):
        _write_older_hdf5(folder / name, folder / f"older-{name}")
        # The text is of variable length: if it is damaged, reading it makes HDF5 hang or crash.
        _write_older_hdf5(folder / name, folder / f"forged-{name}", version="a long text")
    _write_weights(folder / "seed_1.weights.h5")
    _write_texts(folder, vocabulary)
    _write_captions(folder)
    ShardCache(folder / "shards", FEATURE_SPEC.fingerprint).add(
        ["a" * 64, "b" * 64], vectors(4)[:2]
    )
    checkpoint = Checkpoint(folder / "checkpoints", "c" * 64)
    checkpoint.save({"weights": np.arange(6.0), "best": np.zeros((2, 3))}, {"epoch": 3})
    for kind in ("JPEG", "PNG", "WEBP"):
        (folder / f"photo.{kind.lower()}").write_bytes(encoded(make_photo(), kind))
    return {
        "features": sorted(folder.glob("*features.h5")),
        "inspect": sorted(folder.glob("*features.h5")),
        "detector": sorted(folder.glob("*detector.h5")),
        "neighbours": sorted(folder.glob("*neighbours.h5")),
        "weights": [folder / "seed_1.weights.h5"],
        "vocabulary": [folder / "vocabulary.json"],
        "captions": [folder / "captions.parquet"],
        "encoder": [folder / "encoder.json"],
        "model": [folder / "model.json"],
        "search": [folder / "search.json"],
        "extract": [folder / "extract.json"],
        "summary": [folder / "captions.json"],
        "history": [folder / "history.csv"],
        "scores": [folder / "captions.parquet", folder / "scored.csv", folder / "scored.json"],
        "score": [folder / "scored.csv", folder / "scored.json"],
        "shard": list((folder / "shards").rglob("*.npz")),
        "checkpoint": [checkpoint.folder / "state.npz"],
        "graph": _write_graph(folder / "graphs"),
        "photo": sorted(folder.glob("photo.*")),
    }


class _Doubling:
    """A model that doubles its input; it is exported as Keras exports its own."""

    def count_params(self) -> int:
        return 0

    def export(self, path: str, **_: object) -> None:
        inputs = opset.parameter([-1, 3], np.float32)
        openvino.save_model(openvino.Model([opset.multiply(inputs, np.float32(2))], [inputs]), path)


def _write_graph(folder: Path) -> list[Path]:
    GraphFile(folder, "drawn", "key").write(_Doubling())
    return sorted(folder.glob("drawn.*"))


def _write_older_hdf5(source: Path, target: Path, *, version: object = None) -> None:
    """Copy a file to HDF5's first format, which has no checksums; maybe with another version."""
    with h5py.File(source) as old, h5py.File(target, "w", libver="earliest") as new:
        for name in old:
            old.copy(name, new)
        for name, value in old.attrs.items():
            new.attrs.create(name, value)
        if version is not None:
            del new.attrs["format_version"]
            new.attrs["format_version"] = version


def _write_weights(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for layer, shapes in {"dense": [(4, 8), (8,)], "dense_1": [(8, 2), (2,)]}.items():
            for number, shape in enumerate(shapes):
                file[f"layers/{layer}/vars/{number}"] = np.ones(shape, "f4")
            file[f"layers/{layer}/vars"].attrs["name"] = layer


def _write_texts(folder: Path, vocabulary: Vocabulary) -> None:
    encoder = EncoderConfig(
        FORMAT_VERSION,
        "MobileNet",
        32,
        "drawn",
        "a" * 64,
        "x.preprocess_input",
        "b" * 64,
        {pooling: ["c" * 64] for pooling in POOLINGS},
        {"keras": "3"},
    )
    write_json(folder / "encoder.json", asdict(encoder))
    best = CrossEntropyEpoch(1, 2.0, 1.0, 9.0)
    training = {"epochs": 1, "best": asdict(best), "stopped": "overfitted"}
    ModelConfig(
        DecoderConfig("merge", len(vocabulary), (6,), 8, 16, 0.1, 0.1),
        (Member(1, "d" * 64, training), Member(2, "e" * 64, training)),
        FEATURE_SPEC,
        vocabulary.fingerprint,
        {"params": {"max_words": 9}, "captions": "c" * 64},
    ).write(folder / "model.json")
    SearchSettings(20, 32, 3, 0.2, 0.3, 3.0, 0.5, ensemble=True).write(folder / "search.json")
    summary = Summary(captions_read=9, captions_kept=8, photos_there=3)
    summary.repair("open_quote", "captions.txt:3", "a dog")
    write_json(folder / "captions.json", summary.as_dict())
    paths = {image_id: f"data/{image_id}" for image_id in IDS}
    write_json(folder / "extract.json", {"failed": {"b.jpg": "empty file"}, "paths": paths})
    write_history(folder / "history.csv", [(1, best), (1, CrossEntropyEpoch(2, 1.5, 0.9, 10.0))])


def _write_captions(folder: Path) -> None:
    rows = [
        {"image_id": f"{n}.jpg", "split": split, "caption_index": i, "raw": text, "text": text,
         "n_words": len(text.split())}
        for n, split in enumerate(["train"] * 6 + ["dev"] * 3 + ["test"] * 3)
        for i, text in enumerate(TEXTS)
    ]  # fmt: skip
    write_caption_table(folder / "captions.parquet", pd.DataFrame(rows), {"made": "for tests"})
    captions = {f"{n}.jpg": text for n, text in enumerate(TEXTS)}
    (folder / "scored.json").write_text(json.dumps(captions), "utf-8")
    lines = ["image_id,caption", *(f"{name},{text}" for name, text in captions.items())]
    (folder / "scored.csv").write_text("\n".join(lines) + "\n", "utf-8")
