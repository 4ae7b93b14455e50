"""Readers of artefacts in a process of their own, which a damaged file may crash.

`python -m tests.support.fuzz_reader FOLDER` reads a line `KIND PATH` from standard input, reads
the file at PATH as an artefact of that kind, whose other files are in FOLDER, and writes one line:

    accepted WHAT     WHAT is a digest of the contents that the artefact's own digests vouch for
    refused MESSAGE   by an error that users see as one line
    failed ERROR      by any other error: a defect
"""

import hashlib
import resource
import shutil
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner

from pipeline.captioner.generation.settings import read_search_settings
from pipeline.captioner.model_config import read_model_config
from pipeline.captioner.neighbours import Neighbours
from pipeline.captioner.training.checkpoint import Checkpoint
from pipeline.captioner.training_artifacts import TrainingArtifacts
from pipeline.captioner.word_detector import WordDetector
from pipeline.cli.main import main as caption
from pipeline.comparison.caption_files import read_captions
from pipeline.datasets.caption_table import read_caption_table
from pipeline.errors import InputError
from pipeline.features.decoding.photos import PhotoError, decode_photo, read_photo
from pipeline.features.feature_spec import read_encoder_config
from pipeline.features.shard_cache import DamagedShardError, ShardCache, read_vectors
from pipeline.features.store import FeatureStore
from pipeline.files import read_texts
from pipeline.reporting.charts import read_history
from pipeline.reporting.data_summary import read_data_summary
from pipeline.storage.keras_weights import check_weights_file
from pipeline.storage.openvino_graphs import LATENCY, GraphFile, compile_graph
from pipeline.text.vocabulary import Vocabulary
from tests.conftest import FEATURE_SPEC

_MAX_MEMORY = 12 << 30  # bytes of address space
_REFUSALS = (InputError, PhotoError, DamagedShardError)


def features(path: Path, _: Path) -> Any:
    """Open and verify a feature store."""
    store = FeatureStore.open(path)
    return store.verify(), store.image_ids, store.feature_spec, store.read(store.image_ids).tolist()


def detector(path: Path, folder: Path) -> Any:
    """Load a word detector."""
    vocabulary = Vocabulary.load(folder / "vocabulary.json")
    return WordDetector.load(path, vocabulary, FEATURE_SPEC, 6).digest


def neighbours(path: Path, folder: Path) -> Any:
    """Load the nearest training photos, and use them."""
    vocabulary = Vocabulary.load(folder / "vocabulary.json")
    detector = WordDetector.load(folder / "detector.h5", vocabulary, FEATURE_SPEC, 6)
    loaded = Neighbours.load(path, vocabulary, detector)
    return loaded.digest, loaded.consensus(np.ones((1, 6), np.float32), [[[4, 5]]])[0].tolist()


def weights(path: Path, _: Path) -> Any:
    """Check a weights file, as before Keras reads it."""
    check_weights_file(path, "fix", 64)


def vocabulary(path: Path, _: Path) -> Any:
    """Load a vocabulary."""
    return Vocabulary.load(path).words


def captions(path: Path, _: Path) -> Any:
    """Read a caption table."""
    return read_caption_table(path).frame.to_numpy().tolist()


def encoder(path: Path, _: Path) -> Any:
    """Read encoder.json."""
    read_encoder_config(path).feature_spec("whole", "average", 1, "float16").fingerprint  # noqa: B018


def model(path: Path, folder: Path) -> Any:
    """Read model.json, as captioning and reports do."""
    config = read_model_config(path, Vocabulary.load(folder / "vocabulary.json"))
    config.check_metadata(path)
    config.feature_spec.fingerprint  # noqa: B018


def search(path: Path, _: Path) -> Any:
    """Read search.json."""
    read_search_settings(path)


def extract(path: Path, _: Path) -> Any:
    """Read extract.json, as training and `caption status` do."""
    read_texts(path, "failed", "fix")
    dict(TrainingArtifacts(path.parent).image_paths)


def summary(path: Path, folder: Path) -> Any:
    """Read captions.json, as the report does."""
    path.replace(path.parent / "captions.json")
    shutil.copy(folder / "extract.json", path.parent)
    read_data_summary(path.parent, read_caption_table(folder / "captions.parquet"))


def history(path: Path, _: Path) -> Any:
    """Read history.csv."""
    read_history(path)


def scores(path: Path, _: Path) -> Any:
    """Read a caption file, as `caption score` does."""
    read_captions(path)


def shard(path: Path, folder: Path) -> Any:
    """Read a shard as the file of its name in the cache."""
    cache = ShardCache(path.parent / "cache", FEATURE_SPEC.fingerprint)
    cache.folder.mkdir(parents=True, exist_ok=True)
    path.replace(cache.folder / next((folder / "shards").rglob("*.npz")).name)
    locations = cache.index(remove_damaged=False)
    if not locations:
        raise InputError("damaged")
    keys = sorted(locations)
    return keys, [(at, rows.tolist()) for at, rows in read_vectors(locations, keys)]


def checkpoint(path: Path, _: Path) -> Any:
    """Load a checkpoint."""
    checkpoint = Checkpoint(path.parent, "c" * 64)
    checkpoint.folder.mkdir(parents=True, exist_ok=True)
    path.replace(checkpoint.folder / "state.npz")
    loaded = checkpoint.load()
    if loaded is None:
        raise InputError("damaged")
    return loaded[1], {name: array.tolist() for name, array in loaded[0].items()}


def photo(path: Path, _: Path) -> Any:
    """Decode a photo."""
    decode_photo(read_photo(path), 32, 1_000_000)


def graph(path: Path, folder: Path) -> Any:
    """Use a converted graph, one of whose three files is the one at `path`."""
    graphs = path.parent / "graphs"
    shutil.copytree(folder / "graphs", graphs, dirs_exist_ok=True)
    path.replace(graphs / f"drawn{path.suffix}")
    file = GraphFile(graphs, "drawn", "key")
    if not file.is_valid():
        raise InputError("damaged")
    return compile_graph(file.path, LATENCY)([np.ones((2, 3), np.float32)])[0].tolist()


def inspect(path: Path, _: Path) -> Any:
    """Run `caption inspect`."""
    return _command("inspect", str(path))


def image(path: Path, folder: Path) -> Any:
    """Run `caption image` with the artefacts in the folder `path`."""
    return _command("image", "--artifacts", str(path), str(folder / "photo.png"))


def score(path: Path, _: Path) -> Any:
    """Run `caption score` against itself."""
    _command("score", str(path), str(path))  # its output has names from the file


def _command(*arguments: str) -> str:
    result = CliRunner().invoke(caption, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code:
        lines = result.stderr.splitlines()
        assert len(lines) == 1, lines
        raise InputError(lines[0])
    return result.stdout


READERS: dict[str, Callable[[Path, Path], Any]] = {
    function.__name__: function
    for function in (
        *(
            features,
            detector,
            neighbours,
            weights,
            vocabulary,
            captions,
            encoder,
            model,
            search,
            extract,
        ),
        *(summary, history, scores, shard, checkpoint, graph, photo, inspect, score, image),
    )
}


def outcome(kind: str, path: Path, folder: Path) -> str:
    """Read a file and return the line about it."""
    try:
        with redirect_stdout(sys.stderr):
            contents = READERS[kind](path, folder)
    except _REFUSALS as error:
        message = str(error)
        return "failed message of several lines" if "\n" in message else f"refused {message}"
    except BaseException as error:  # noqa: BLE001  (every error is an outcome)
        frames = [
            f for f in traceback.extract_tb(error.__traceback__) if "/pipeline/" in f.filename
        ]
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        return f"failed {place} {type(error).__name__} {str(error)[:100]!r}"
    return f"accepted {hashlib.sha256(repr(contents).encode()).hexdigest()[:16]}"


def main() -> None:
    """Read the file of each line of standard input."""
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    folder = Path(sys.argv[1])
    for line in sys.stdin:
        kind, _, path = line.rstrip("\n").partition(" ")
        text = outcome(kind, Path(path), folder).encode("utf-8", "backslashreplace").decode()
        print(text, flush=True)


if __name__ == "__main__":
    main()
