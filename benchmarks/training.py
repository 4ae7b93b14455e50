"""Training: an epoch of whole sequences, against the notebook's epoch of expanded prefixes.

And greedy search: a whole set in batches, against the notebook's loop over photos and words.
"""

import itertools
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import (
    Measure,
    Row,
    make_timer,
    measure_interleaved,
    median_ratio,
)
from benchmarks.noise import write_vectors
from benchmarks.notebook_decoder import NotebookDecoder
from pipeline.backend import keras
from pipeline.captioner.decoders.decoder import build_decoder
from pipeline.captioner.generation.beam_search import search
from pipeline.captioner.model_config import DecoderConfig
from pipeline.captioner.training.batches import Batches
from pipeline.captioner.training.loss import LossModel, mean_loss, mean_over_words
from pipeline.datasets.sample.scenes import generate_scene
from pipeline.datasets.sample.wordings import caption_scene
from pipeline.features.store import FeatureStore
from pipeline.metrics.tokenizer import tokenize
from pipeline.text.vocabulary import END, SPECIAL_TOKENS, START, Vocabulary

_PHOTOS = 100  # enough for the notebook's epoch to take a while
_DEV_PHOTOS = 40
_EPOCHS = 3
_LARGE_VOCABULARY = 7_577  # words, as in the notebook
_SMALL_VOCABULARY = 774  # words, as 776 photos have
_MAX_WORDS = 32  # to which the notebook pads its prefixes
_SEED = 1
# Captions per step, where the notebook takes the captions of one photo: 64 take more time, with
# 256 less is learned in the same time.
_MERGE_BATCH_SIZE = 128


def run(_: Path) -> list[Row]:
    """Train merge decoders of the same size both ways, and caption with them both ways.

    Each side has its own dropout: the notebook has none before the logits.
    """
    rows = [_compare_with_notebook(size) for size in (_SMALL_VOCABULARY, _LARGE_VOCABULARY)]
    return [row for group in rows for row in group]


def _compare_with_notebook(vocabulary_size: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        data = _SceneData(Path(folder) / "features.h5", vocabulary_size)
        trainer = _MergeTrainer(data)
        notebook = NotebookDecoder(data.features, data.sequences, vocabulary_size, _MAX_WORDS)
        train, dev = range(_PHOTOS), range(_PHOTOS, _PHOTOS + _DEV_PHOTOS)
        epoch = make_timer(trainer.train_epoch)
        notebook_epoch = make_timer(lambda: notebook.train_epoch(train))
        # The first epoch of each builds graphs: it counts as training, but not as a measurement.
        total_s, notebook_total_s = epoch(), notebook_epoch()
        epoch_s, notebook_epoch_s = measure_interleaved(
            {
                f"{vocabulary_size} words, an epoch, s": epoch,
                "notebook's epoch, s": notebook_epoch,
            },
            _EPOCHS,
        ).values()
        # The notebook takes more steps per epoch and so learns more in it: what can be compared is
        # the loss after the same time.
        total_s, notebook_total_s = total_s + sum(epoch_s), notebook_total_s + sum(notebook_epoch_s)
        while total_s < notebook_total_s:
            total_s += epoch()
        loss, notebook_loss = mean_loss(trainer.decoder, data.dev), notebook.mean_loss(dev)
        rates, notebook_rates = _measure_search(trainer, notebook, data).values()
    median = statistics.median
    return [
        Row(
            f"{vocabulary_size:,} words: an epoch of {_PHOTOS} photos",
            f"{median(epoch_s):.2f} s, the notebook's {median(notebook_epoch_s):.1f} s, "
            f"x {median_ratio(notebook_epoch_s, epoch_s):.1f} as fast",
            "x 30",
        ),
        Row(
            f"validation loss per word after {notebook_total_s:.0f} s of training",
            f"{loss:.3f}, the notebook's {notebook_loss:.3f}",
            "no worse",
        ),
        Row(
            "greedy captions",
            f"{median(rates):.0f} per second, "
            f"x {median_ratio(rates, notebook_rates):.0f} the notebook's rate",
            "x 50",
        ),
    ]


def _measure_search(
    trainer: "_MergeTrainer", notebook: NotebookDecoder, data: "_SceneData"
) -> dict[str, list[float]]:
    few_photos = range(5)
    measures = {
        "captions/s": _make_rate(lambda: trainer.caption_photos(data.features), len(data.features)),
        "notebook's captions/s": _make_rate(
            lambda: notebook.caption_photos(few_photos), len(few_photos)
        ),
    }
    for measure in measures.values():
        measure()  # builds graphs
    return measure_interleaved(measures)


class _SceneData:
    """Captions of drawn scenes with random features: only time and loss count.

    Attributes:
        features: (N, D), of the training and then the dev photos.
        vocabulary: the vocabulary of the captions, enlarged to the required size.
        train: batches of the training photos.
        dev: batches of the dev photos.
        sequences: for each photo its captions' ids, <start> and <end> included.
    """

    def __init__(self, path: Path, vocabulary_size: int) -> None:
        """Make the photos and a vocabulary of that size, most of whose words no caption has."""
        random = np.random.default_rng(0)
        self.features = random.random((_PHOTOS + _DEV_PHOTOS, 2048), np.float32)
        names = write_vectors(path, self.features)
        raw = {name: caption_scene(generate_scene(0, "train", i)) for i, name in enumerate(names)}
        texts = {name: [" ".join(tokenize(r)) for r in group] for name, group in raw.items()}
        all_texts = [text for group in texts.values() for text in group]
        n_words = len({word for text in all_texts for word in text.split()} | set(SPECIAL_TOKENS))
        unused_words = " ".join(f"w{number}" for number in range(vocabulary_size - n_words))
        self.vocabulary = Vocabulary.build([*all_texts, unused_words], 1, "")
        store = FeatureStore.open(path)

        def make_batches(chosen: list[str]) -> Batches:
            pairs = [(name, text) for name in chosen for text in texts[name]]
            return Batches(pairs, store, self.vocabulary, _MERGE_BATCH_SIZE, _MAX_WORDS)

        self.train, self.dev = make_batches(names[:_PHOTOS]), make_batches(names[_PHOTOS:])
        self.sequences = [
            [[START, *self.vocabulary.encode(text), END] for text in texts[name]] for name in names
        ]


class _MergeTrainer:
    """The merge decoder of this project: whole sequences in batches, one search for all photos."""

    def __init__(self, data: _SceneData) -> None:
        keras.utils.set_random_seed(_SEED)
        sizes = {"embedding_size": 256, "units": 256, "dropout": 0.5, "output_dropout": 0.5}
        config = DecoderConfig("merge", len(data.vocabulary), (2048,), **sizes)  # type: ignore[arg-type]
        self.decoder = build_decoder(config)
        self._model = LossModel(self.decoder, keras.optimizers.Adam(1e-3))
        self._batches, self._epochs = data.train, itertools.count(1)

    def train_epoch(self) -> None:
        batches = self._batches.train_batches(_SEED, next(self._epochs))
        mean_over_words(self._model.train_on_batch, batches)

    def caption_photos(self, features: Any) -> None:
        search(self.decoder, features, 1, _MAX_WORDS)


def _make_rate(work: Callable[[], None], n_photos: int) -> Measure:
    measure_s = make_timer(work)
    return lambda: n_photos / measure_s()
