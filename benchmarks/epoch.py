"""An epoch of the default decoder on captions like all of Flickr8k's.

Against the time that its matrix products alone need at this machine's speed, and against the same
decoder in PyTorch, if it is installed.
"""

import importlib
import importlib.util
import itertools
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.encoding import make_matrix_product
from benchmarks.harness import (
    ROUNDS,
    Measure,
    MeasuringProcess,
    Row,
    make_timer,
    measure_interleaved,
    median_ratio,
)
from benchmarks.noise import write_vectors
from pipeline.backend import keras
from pipeline.captioner.decoders.decoder import build_decoder
from pipeline.captioner.model_config import DecoderConfig
from pipeline.captioner.training.batches import Batches
from pipeline.captioner.training.cross_entropy import CrossEntropy
from pipeline.captioner.training.optimizer import OptimizerConfig
from pipeline.features.store import FeatureStore
from pipeline.text.vocabulary import END, SPECIAL_TOKENS, START, Vocabulary

_CAPTIONS = 3_840  # an eighth of Flickr8k's
_CAPTIONS_PER_PHOTO = 5
_VOCABULARY = 4_509
_FEATURE_SHAPE = 4, 2776
_MAX_WORDS = 32
_UNITS = 256
_BATCH_SIZE = 128
_LABEL_SMOOTHING = 0.1
_WEIGHT_DECAY = 0.3
_SEED = 1


def run(_: Path) -> list[Row]:
    """Train each decoder in a process with its own threads."""
    sequences, pairs, vocabulary, features = _draw_captions()
    sizes = {"embedding_size": _UNITS, "units": _UNITS, "dropout": 0.3, "output_dropout": 0.5}
    config = DecoderConfig(
        "merge",
        len(vocabulary),
        _FEATURE_SHAPE,
        **sizes,  # type: ignore[arg-type]
        feature_norm="center",
        spatial_residual_size=8,
    )
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder) / "features.h5"
        names = write_vectors(path, features)
        processes: dict[str, tuple[Any, ...]] = {
            "epoch, s": (_make_epoch, path, names, pairs, vocabulary, config),
            "peak, GFLOP/s": (make_matrix_product,),
        }
        if importlib.util.find_spec("torch") is not None:
            make = importlib.import_module("benchmarks.pytorch_decoder").make_epoch
            of_captions = features[[photo for photo, _ in pairs]]
            settings = config, _BATCH_SIZE, _LABEL_SMOOTHING, _WEIGHT_DECAY
            processes["PyTorch's epoch, s"] = (make, sequences, of_captions, *settings)
        measures: dict[str, Measure] = {
            name: stack.enter_context(MeasuringProcess(*process)).run
            for name, process in processes.items()
        }
        for warm_up in measures.values():
            warm_up()
        values = measure_interleaved(measures, ROUNDS)
    return _rows(*values.values(), work=_matrix_products(sequences, config))


def _rows(
    epoch_s: list[float], peaks: list[float], pytorch_s: list[float] | None = None, *, work: float
) -> list[Row]:
    """Return the rows of results; `work` is the GFLOP of an epoch's matrix products."""
    times = statistics.median(t * peak / work for t, peak in zip(epoch_s, peaks, strict=True))
    name = f"{_VOCABULARY:,} words: an epoch of {_CAPTIONS:,} captions in batches of {_BATCH_SIZE}"
    seconds = f"{statistics.median(epoch_s):.2f} s"
    rows = [Row(name, f"{seconds}, x {times:.2f} its matrix products' time", "x 1.5")]
    if pytorch_s:
        seconds = f"{statistics.median(pytorch_s):.2f} s"
        ratio = f"x {median_ratio(pytorch_s, epoch_s):.2f} as fast"
        rows.append(Row("the same in PyTorch", f"{seconds}, ours {ratio}", "x 1.3"))
    return rows


def _draw_captions() -> tuple[
    list[list[int]], list[tuple[int, str]], Vocabulary, npt.NDArray[np.float16]
]:
    """Draw captions like Flickr8k's.

    Returns:
        The captions' ids with <start> and <end>, their (photo, text), the vocabulary, and the
        photos' features (N, P, D).
    """
    random = np.random.default_rng(0)
    # The mean, deviation and skew of Flickr8k's caption lengths: they decide the cost of padding.
    lengths = random.gamma(8, 11 / 8, _CAPTIONS).round().astype(int).clip(2, _MAX_WORDS)
    words = [f"w{number}" for number in range(_VOCABULARY - len(SPECIAL_TOKENS))]
    frequencies = 1 / np.arange(1, len(words) + 1)
    frequencies /= frequencies.sum()
    texts = [" ".join(random.choice(words, length, p=frequencies)) for length in lengths]
    vocabulary = Vocabulary.build([*texts, *words], 1, "")
    sequences = [[START, *vocabulary.encode(text), END] for text in texts]
    features = random.random(
        (_CAPTIONS // _CAPTIONS_PER_PHOTO, *_FEATURE_SHAPE), np.float32
    ).astype(np.float16)
    pairs = [(number // _CAPTIONS_PER_PHOTO, text) for number, text in enumerate(texts)]
    return sequences, pairs, vocabulary, features


def _matrix_products(sequences: list[list[int]], config: DecoderConfig) -> float:
    """Return the GFLOP of the matrix products of an epoch, forwards and backwards."""
    positions, size = config.feature_shape
    units, residual_size = config.units, config.spatial_residual_size
    words = sum(len(sequence) - 1 for sequence in sequences)
    per_word = (
        4 * units * (config.embedding_size + units) + units * units + units * config.vocabulary_size
    )
    image = (size + positions * residual_size) * units + positions * size * residual_size
    # Two operations each, three products; the features need no gradient.
    return (6 * words * per_word + 4 * len(sequences) * image) / 1e9


def _make_epoch(
    path: Path,
    names: list[str],
    pairs: list[tuple[int, str]],
    vocabulary: Vocabulary,
    config: DecoderConfig,
) -> Measure:
    """Return a function that trains one epoch and returns its seconds."""
    keras.utils.set_random_seed(_SEED)
    captions = [(names[photo], text) for photo, text in pairs]
    batches = Batches(captions, FeatureStore.open(path), vocabulary, _BATCH_SIZE, _MAX_WORDS)
    optimizer = OptimizerConfig(1e-3, weight_decay=_WEIGHT_DECAY)
    phase = CrossEntropy(
        build_decoder(config),
        batches,
        optimizer,
        epochs=100,
        seed=_SEED,
        label_smoothing=_LABEL_SMOOTHING,
        condition_dropout=0.15,
    )
    phase.trace()
    epochs = itertools.count(1)
    return make_timer(lambda: phase.train_epoch(next(epochs)))
