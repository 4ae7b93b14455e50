"""Training: an epoch of whole sequences, against the notebook's of expanded prefixes.

Against PyTorch too, where it is installed. And searching: whole sets in batches, against the
notebook's loop over photos and words.
"""

import importlib
import importlib.util
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Row, Worker, interleaved, ratio
from benchmarks.notebook_decoder import NotebookDecoder
from pipeline.backend import keras
from pipeline.captioner.decoders.decoder import build_decoder
from pipeline.captioner.generation.beam_search import search
from pipeline.captioner.model_config import DecoderConfig
from pipeline.captioner.training.batches import Batches
from pipeline.captioner.training.loss import compile_network, mean_loss, mean_over_words
from pipeline.datasets.sample.scenes import draw_scene
from pipeline.datasets.sample.wordings import captions
from pipeline.features.feature_spec import FeatureSpec
from pipeline.features.store import FeatureStore, write_store
from pipeline.metrics.tokenizer import tokenize
from pipeline.text.vocabulary import END, MARKERS, START, Vocabulary

_PHOTOS = 100  # of which the notebook's epoch takes its time
_DEV = 40
_EPOCHS = 3
_MANY_WORDS = 7_577  # of the vocabulary, as the notebook's
_MAX_WORDS = 32  # to which the notebook pads its prefixes
_SEED = 1
# Captions a step beside the notebook's photo a step: 64 take more time, 256 learn less of it.
_OUR_BATCH_SIZE = 128
_FEW_WORDS = 774  # as 776 photos have; also beside PyTorch
# What is trained beside PyTorch: `init_inject` of this size, on as much as 776 photos have.
_CAPTIONS = 3_880
_UNITS = 256
_DROPOUT = 0.5
_BATCH_SIZE = 32


def rows(_: Path) -> list[Row]:
    """Train a merge decoder of the same sizes both ways, then search with it both ways.

    Each side has its own dropout: the notebook has none before the logits.
    """
    found = [_beside_the_notebook(words) for words in (_FEW_WORDS, _MANY_WORDS)]
    return [row for rows in found for row in rows] + _beside_pytorch()


def _beside_the_notebook(words: int) -> list[Row]:
    """Train and search with a vocabulary of so many words."""
    with tempfile.TemporaryDirectory() as folder:
        data = _Data(Path(folder) / "features.h5", words)
        ours = _Ours(data)
        theirs = NotebookDecoder(data.features, data.ids, words, _MAX_WORDS)
        train, dev = range(_PHOTOS), range(_PHOTOS, _PHOTOS + _DEV)
        epoch, their_epoch = _seconds(ours.epoch), _seconds(lambda: theirs.train_epoch(train))
        # The first of each makes graphs: it teaches, and is no measure of an epoch.
        took, they_took = epoch(), their_epoch()
        quick, slow = interleaved(
            {f"{words} words, an epoch, s": epoch, "notebook's epoch, s": their_epoch}, _EPOCHS
        ).values()
        # An epoch of a photo a step has more steps, and so learns more, than one of batches: the
        # same time is what can be compared.
        took, they_took = took + sum(quick), they_took + sum(slow)
        while took < they_took:
            took += epoch()
        losses = mean_loss(ours.decoder, data.dev), theirs.loss(dev)
        some = range(5)
        rates = {
            "captions/s": _rate(lambda: ours.search(data.features), len(data.features)),
            "notebook's captions/s": _rate(lambda: theirs.search(some), len(some)),
        }
        for rate in rates.values():
            rate()
        here, there = interleaved(rates).values()
    return [
        Row(
            f"{words:,} words: an epoch of {_PHOTOS} photos",
            f"{statistics.median(quick):.2f} s, the notebook's {statistics.median(slow):.1f} s, "
            f"x {ratio(slow, quick):.1f} as fast",
            "x 30",
        ),
        Row(
            f"validation loss of a word after {they_took:.0f} s of training",
            f"{losses[0]:.3f}, the notebook's {losses[1]:.3f}",
            "no worse",
        ),
        Row(
            "greedy captions",
            f"{statistics.median(here):.0f} a second, x {ratio(here, there):.0f} of the notebook's",
            "x 50",
        ),
    ]


def _beside_pytorch() -> list[Row]:
    """Train `init_inject` here and in PyTorch, each in a process and with threads of its own."""
    if importlib.util.find_spec("torch") is None:
        return []
    make_epoch = importlib.import_module("benchmarks.pytorch_decoder").make_epoch
    random = np.random.default_rng(0)
    # The mean, deviation and skew of Flickr8k's captions: what padding costs hangs on them.
    lengths = random.gamma(8, 11 / 8, _CAPTIONS).round().astype(int).clip(2, _MAX_WORDS)
    known = [f"w{number}" for number in range(_FEW_WORDS - len(MARKERS))]
    texts = [" ".join(random.choice(known, length)) for length in lengths]
    vocabulary = Vocabulary.build([*texts, *known], 1, "")
    sequences = [[START, *vocabulary.encode(text), END] for text in texts]
    features = random.random((_CAPTIONS, 2048), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        names = _write_features(Path(folder) / "features.h5", features)
        pairs = list(zip(names, texts, strict=True))
        with (
            Worker(_our_epoch, Path(folder) / "features.h5", pairs, vocabulary) as ours,
            Worker(
                make_epoch, sequences, features, len(vocabulary), _UNITS, _DROPOUT, _BATCH_SIZE
            ) as theirs,
        ):
            for warm in (ours, theirs):
                warm.run()
            seconds = interleaved(
                {"init_inject, s": ours.run, "PyTorch's init_inject, s": theirs.run}, _EPOCHS
            )
    here, there = seconds.values()
    return [
        Row(
            f"init_inject, an epoch of {_CAPTIONS} captions in batches of {_BATCH_SIZE}",
            f"{statistics.median(here):.2f} s, in PyTorch {statistics.median(there):.2f} s, "
            f"x {ratio(there, here):.2f} as fast",
            "x 1.3",
        )
    ]


def _our_epoch(
    path: Path, pairs: list[tuple[str, str]], vocabulary: Vocabulary
) -> Callable[[], float]:
    """Return what trains one epoch and returns its seconds; for a process of its own."""
    keras.utils.set_random_seed(_SEED)
    config = DecoderConfig(
        "init_inject", len(vocabulary), (2048,), _UNITS, _UNITS, _DROPOUT, _DROPOUT
    )
    network = build_decoder(config).network
    compile_network(network, keras.optimizers.Adam(5e-4))
    batches = Batches(pairs, FeatureStore.open(path), vocabulary, _BATCH_SIZE, _MAX_WORDS)
    numbers = itertools.count(1)

    def epoch() -> float:
        start = time.perf_counter()
        mean_over_words(network.train_on_batch, batches.train_batches(_SEED, next(numbers)))
        return time.perf_counter() - start

    return epoch


def _write_features(path: Path, features: Any) -> list[str]:
    """Write a feature store; return its photos' names."""
    names = [f"{number:04}.jpg" for number in range(len(features))]
    encoding = FeatureSpec(
        "Noise", 299, "0", "none", "0", "drawn", "whole", "average", 1, "float16"
    )
    shas = {name: f"{number:064x}" for number, name in enumerate(names)}
    write_store(path, encoding, shas, {}, [(list(range(len(names))), features)])
    return names


class _Data:
    """Captions of drawn scenes beside vectors of noise: only time and loss count."""

    def __init__(self, path: Path, size: int) -> None:
        """Make photos, and a vocabulary of `size` words, most of which no caption has."""
        self.features = np.random.default_rng(0).random((_PHOTOS + _DEV, 2048), np.float32)
        names = _write_features(path, self.features)
        said = {name: captions(draw_scene(0, "train", i)) for i, name in enumerate(names)}
        texts = {name: [" ".join(tokenize(raw)) for raw in group] for name, group in said.items()}
        words = [text for group in texts.values() for text in group]
        known = len({word for text in words for word in text.split()} | set(MARKERS))
        more = " ".join(f"w{number}" for number in range(size - known))
        self.vocabulary = Vocabulary.build([*words, more], 1, "")
        store = FeatureStore.open(path)

        def batches(chosen: list[str]) -> Batches:
            pairs = [(name, text) for name in chosen for text in texts[name]]
            return Batches(pairs, store, self.vocabulary, _OUR_BATCH_SIZE, _MAX_WORDS)

        self.train, self.dev = batches(names[:_PHOTOS]), batches(names[_PHOTOS:])
        self.ids = [
            [[START, *self.vocabulary.encode(text), END] for text in texts[name]] for name in names
        ]


class _Ours:
    """Whole sequences in batches; a beam of all photos at once."""

    def __init__(self, data: _Data) -> None:
        keras.utils.set_random_seed(_SEED)
        sizes = {"embedding_size": 256, "units": 256, "dropout": 0.5, "output_dropout": 0.5}
        config = DecoderConfig("merge", len(data.vocabulary), (2048,), **sizes)  # type: ignore[arg-type]
        self.decoder = build_decoder(config)
        compile_network(self.decoder.network, keras.optimizers.Adam(1e-3))
        self._captions, self._numbers = data.train, itertools.count(1)

    def epoch(self) -> None:
        batches = self._captions.train_batches(_SEED, next(self._numbers))
        mean_over_words(self.decoder.network.train_on_batch, batches)

    def search(self, features: Any) -> None:
        search(self.decoder, features, 1, _MAX_WORDS)


def _seconds(work: Callable[[], None]) -> Callable[[], float]:
    def measure() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return measure


def _rate(work: Callable[[], None], photos: int) -> Callable[[], float]:
    return lambda: photos / _seconds(work)()
