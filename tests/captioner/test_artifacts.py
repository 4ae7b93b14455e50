import io
import shutil
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import pyarrow.parquet as pq
import pytest

from pipeline.captioner.artifacts import CAPTIONER_FILES, Artifacts
from pipeline.captioner.model_folder import Model
from pipeline.captioner.neighbours import fit_neighbours
from pipeline.captioner.training_artifacts import STAGES
from pipeline.captioner.word_detector import fit_detector
from pipeline.datasets.caption_table import read_caption_table
from pipeline.errors import InputError
from pipeline.features.feature_spec import FORMAT_VERSION, POOLINGS, EncoderConfig
from pipeline.features.store import FeatureStore, write_store
from pipeline.files import write_json
from pipeline.text.vocabulary import Vocabulary
from tests.conftest import FEATURE_SPEC
from tests.support.artifacts import SETTINGS
from tests.support.captioner import (
    CAPTIONS,
    SAME_LENGTH_CAPTIONS,
    make_peaked_decoder,
    vectors,
    weight_bytes,
    write_captions,
    write_extract_json,
)

SEEDS = (7, 8)
TEST = [(f"test-{image_id}", text) for image_id, text in SAME_LENGTH_CAPTIONS]
PROPERTIES = (
    *(
        "table",
        "vocabulary",
        "store",
        "image_paths",
        "encoder_config",
        "model_config",
        "feature_spec",
    ),
    *("detector", "neighbours", "search_settings", "decoders"),
)


def write_run(
    folder: Path,
    train: list[tuple[str, str]] = CAPTIONS,
    test: list[tuple[str, str]] = TEST,
    encoder_sha256: str = "a" * 64,
    decoder_seed: int = 1,
) -> Path:
    """Write the files of a finished run; encoder.weights.h5 is empty."""
    write_captions(folder / "captions.parquet", {"train": train, "test": test})
    write_json(folder / "captions.json", {})
    table = read_caption_table(folder / "captions.parquet")
    vocabulary = Vocabulary.build(table.texts("train"), 1, table.fingerprint)
    vocabulary.save(folder / "vocabulary.json")
    encoder = EncoderConfig(
        FORMAT_VERSION,
        "MobileNet",
        32,
        "random",
        encoder_sha256,
        FEATURE_SPEC.preprocessing,
        FEATURE_SPEC.preprocessing_sha256,
        {name: ["c" * 64] for name in POOLINGS},
        {"keras": "3.15.1"},
    )
    write_json(folder / "encoder.json", asdict(encoder))
    (folder / "encoder.weights.h5").touch()
    spec = encoder.feature_spec("whole", "average", 1, "float32")
    image_ids = sorted({image_id for image_id, _ in [*train, *test]})
    rows = [(list(range(len(image_ids))), vectors((6,), len(image_ids)))]
    write_store(folder / "features.h5", spec, {i: f"sha256 of {i}" for i in image_ids}, {}, rows)
    write_extract_json(folder, {image_id: f"photos/{image_id}" for image_id in image_ids})
    trained: dict[int, Any] = {
        seed: (make_peaked_decoder(len(vocabulary), seed=seed + decoder_seed), {}) for seed in SEEDS
    }
    metadata = {"captions": table.fingerprint}
    model = Model.from_decoders(trained, spec, vocabulary.fingerprint, metadata)
    model.save(folder / "model")
    captions = {image_id: [vocabulary.encode(text)] for image_id, text in train}
    store = FeatureStore.open(folder / "features.h5")
    detector = fit_detector(captions, store.read, len(vocabulary), 0.3)
    detector.save(folder / "detector.h5", vocabulary, spec)
    neighbours = fit_neighbours(captions, store.read, detector)
    neighbours.save(folder / "neighbours.h5", vocabulary, detector)
    SETTINGS.write(folder / "search.json")
    return folder


OTHER_RUNS: dict[str, dict[str, Any]] = {
    "words": {"train": [(image_id, f"new {text}") for image_id, text in CAPTIONS]},
    "test split": {"test": TEST[:3]},
    "encoder": {"encoder_sha256": "b" * 64},
    "weights": {"decoder_seed": 2},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run") / "artifacts")


@pytest.fixture(scope="module")
def other_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write runs that differ from `run` in one respect, their name."""
    folder = tmp_path_factory.mktemp("other runs")
    return {name: write_run(folder / name, **changes) for name, changes in OTHER_RUNS.items()}


@pytest.fixture
def folder(run: Path, tmp_path: Path) -> Path:
    """Copy the run, to change it."""
    return Path(shutil.copytree(run, tmp_path / "artifacts"))


def test_all_files_of_a_run_are_accepted(run: Path) -> None:
    artifacts = Artifacts.open(run, *STAGES)
    assert artifacts.has_captions
    assert [member.seed for member in artifacts.model_config.members] == list(SEEDS)
    assert artifacts.search_settings == SETTINGS
    assert (
        artifacts.feature_spec
        == artifacts.store.feature_spec
        == artifacts.model_config.feature_spec
    )
    assert len(artifacts.captions("test")) == len(TEST)
    expected = [make_peaked_decoder(len(artifacts.vocabulary), seed=seed + 1) for seed in SEEDS]
    assert [*map(weight_bytes, artifacts.decoders)] == [*map(weight_bytes, expected)]
    assert len(artifacts.detector.prior) == len(artifacts.vocabulary)


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often each file is opened, by its name."""
    counts: Counter[str] = Counter()

    def spy(owner: Any, attribute: str, path_position: int) -> None:
        function = getattr(owner, attribute)

        def count(*arguments: Any, **options: Any) -> Any:
            path = arguments[path_position]
            if isinstance(path, str | Path):  # or an open file, which h5py passes on too
                counts[Path(path).name] += 1
            return function(*arguments, **options)

        monkeypatch.setattr(owner, attribute, count)

    spy(io, "open", 0)
    spy(h5py.File, "__init__", 1)
    spy(pq, "ParquetFile", 0)
    return counts


def test_every_file_is_opened_once(run: Path, opens: Counter[str]) -> None:
    artifacts = Artifacts.open(run, *STAGES)
    assert not opens

    def use_everything() -> None:
        for name in PROPERTIES:
            getattr(artifacts, name)
        artifacts.captions("train")
        artifacts.references("test")

    use_everything()
    # Keras opens the weights itself, after they have been checked.
    weights = {f"seed_{seed}.weights.h5": opens.pop(f"seed_{seed}.weights.h5") for seed in SEEDS}
    assert set(weights.values()) == {2}
    # The engine opens the encoder's weights, and the report captions.json.
    unopened = {"encoder.weights.h5", "captions.json"}
    assert opens == {Path(name).name: 1 for name in STAGES if name not in unopened}
    opens.clear()
    use_everything()
    assert not opens


def test_captioning_opens_only_the_files_that_it_requires(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "captioner"
    for name in (
        *CAPTIONER_FILES,
        "neighbours.h5",
        *(f"model/seed_{seed}.weights.h5" for seed in SEEDS),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(run / name, folder / name)
    artifacts = Artifacts.open(folder, *CAPTIONER_FILES)
    assert not artifacts.has_captions
    for name in set(PROPERTIES) - {"table", "store", "image_paths"}:
        assert getattr(artifacts, name)


CAPTIONS_VOCABULARY = r"vocabulary\.json was built from other captions .*: run `dvc repro tokenize`"
MODEL_VOCABULARY = r"model/model\.json was trained with another vocabulary: run `dvc repro train`"
MODEL_CAPTIONS = (
    r"model was trained on other captions than .*/captions\.parquet has, perhaps on its "
    "test split: run `dvc repro train`"
)
OTHER_WEIGHTS = (
    r"model/seed_7\.weights\.h5 has other weights than .*/model/model\.json records: "
    "run `dvc repro train`"
)
NOT_THE_MODELS = r"and the model do not belong together \(other weights_sha256\): run `dvc repro`"
NEIGHBOURS = r"neighbours\.h5 was made with another {}: run `dvc repro detector`"
DETECTOR = r"detector\.h5 was fitted {}: run `dvc repro detector`"


@pytest.mark.parametrize(
    ("other", "files", "name", "problem"),
    [
        ("words", ["vocabulary.json"], "vocabulary", CAPTIONS_VOCABULARY),
        ("words", ["captions.parquet"], "vocabulary", CAPTIONS_VOCABULARY),
        ("words", ["captions.parquet", "vocabulary.json"], "model_config", MODEL_VOCABULARY),
        ("words", ["model/model.json"], "model_config", MODEL_VOCABULARY),
        ("test split", ["captions.parquet", "vocabulary.json"], "model_config", MODEL_CAPTIONS),
        ("test split", ["model/model.json"], "model_config", MODEL_CAPTIONS),
        ("encoder", ["model/model.json"], "feature_spec", rf"encoder\.json {NOT_THE_MODELS}"),
        ("encoder", ["encoder.json"], "feature_spec", rf"encoder\.json {NOT_THE_MODELS}"),
        ("encoder", ["features.h5"], "store", rf"features\.h5 {NOT_THE_MODELS}"),
        ("words", ["detector.h5"], "detector", DETECTOR.format("with another vocabulary")),
        ("test split", ["detector.h5"], "detector", DETECTOR.format("on other captions")),
        (
            "encoder",
            ["detector.h5"],
            "detector",
            DETECTOR.format("on other features than the model's"),
        ),
        ("words", ["neighbours.h5"], "neighbours", NEIGHBOURS.format("vocabulary")),
        ("test split", ["neighbours.h5"], "neighbours", NEIGHBOURS.format("captions")),
        ("weights", ["model/seed_7.weights.h5"], "decoders", OTHER_WEIGHTS),
    ],
)
def test_files_of_another_run_are_refused(
    folder: Path,
    other_runs: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    other: str,
    files: list[str],
    name: str,
    problem: str,
) -> None:
    for file in files:
        shutil.copy(other_runs[other] / file, folder / file)
    monkeypatch.chdir(folder.parent)
    artifacts = Artifacts.open(Path("artifacts"), *STAGES)
    # A relative folder is reported by its absolute path.
    with pytest.raises(InputError, match=rf"^{folder}/{problem}$"):
        getattr(artifacts, name)


def test_a_vocabulary_of_another_run_is_refused_without_captions_too(
    folder: Path, other_runs: dict[str, Path]
) -> None:
    (folder / "captions.parquet").unlink()
    shutil.copy(other_runs["words"] / "vocabulary.json", folder)
    artifacts = Artifacts.open(folder, *CAPTIONER_FILES)
    assert "new" in artifacts.vocabulary.ids
    with pytest.raises(InputError, match=r"model\.json was trained with another vocabulary"):
        _ = artifacts.model_config
    with pytest.raises(InputError, match=r"model\.json was trained with another vocabulary"):
        _ = artifacts.detector


def test_captions_and_references_are_of_a_store_that_is_checked(
    folder: Path, other_runs: dict[str, Path]
) -> None:
    shutil.copy(other_runs["encoder"] / "features.h5", folder)
    artifacts = Artifacts.open(folder, *STAGES)
    for read in (artifacts.captions, artifacts.references):
        with pytest.raises(InputError, match=r"features\.h5 and the model do not belong together"):
            read("test")
