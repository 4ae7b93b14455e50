"""Training from a store larger than memory: attention over the grids of 8,000 photos."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.harness import MeasuringProcess, Row
from benchmarks.limits import can_limit, limit_memory, remove_limits
from benchmarks.noise import write_noise
from benchmarks.usage import anonymous_memory

_PHOTOS = 8_000
_SHAPE = (100, 2048)
_MEMORY = 2 << 30  # bytes
_WORDS, _LENGTH = 774, 11
_BATCH_SIZE = 64
_BATCHES = 60
_DEV_PHOTOS = 1_000  # of the photos, captioned for validation


def run(_: Path) -> list[Row]:
    """Train and validate in a process with less memory than the store has bytes."""
    with tempfile.TemporaryDirectory() as folder:
        write_noise(Path(folder), _PHOTOS, _SHAPE)
        (Path(folder) / "features.npy").unlink()
        size = (Path(folder) / "features.h5").stat().st_size
        with MeasuringProcess(_make_training, Path(folder) / "features.h5") as process:
            rate, memory = process.run()
    remove_limits()
    limit = f"{_MEMORY >> 20} MiB" if can_limit() else "no limit: this system allows none"
    return [
        Row(
            f"training attention from a store of {size / 1e9:.1f} GB, "
            f"validated on {_DEV_PHOTOS:,} photos",
            f"within {limit}: {rate:.0f} captions/s, {memory / 2**20:.0f} MiB besides the store",
            "it trains",
        )
    ]


def _make_training(path: Path) -> Callable[[], tuple[float, int]]:
    """Return a function that trains; it returns captions/s and bytes that are not the store's."""
    limit_memory(_MEMORY)
    from pipeline.backend import keras  # noqa: PLC0415  (its memory counts too)
    from pipeline.captioner.decoders.decoder import build_decoder  # noqa: PLC0415
    from pipeline.captioner.model_config import DecoderConfig  # noqa: PLC0415
    from pipeline.captioner.training.batches import Batches  # noqa: PLC0415
    from pipeline.captioner.training.loss import LossModel  # noqa: PLC0415
    from pipeline.captioner.training.validation import Validation  # noqa: PLC0415
    from pipeline.features.store import FeatureStore  # noqa: PLC0415
    from pipeline.text.vocabulary import Vocabulary  # noqa: PLC0415

    store = FeatureStore.open(path)
    words = [f"w{number}" for number in range(_WORDS)]
    captions = np.random.default_rng(0).choice(words, (_PHOTOS, _LENGTH))
    pairs = [(i, " ".join(text)) for i, text in zip(store.image_ids, captions, strict=True)]
    vocabulary = Vocabulary.build(words, 1, "")
    batches = Batches(pairs, store, vocabulary, batch_size=_BATCH_SIZE, max_words=50)
    config = DecoderConfig("attention", len(vocabulary), store.shape, 256, 256, 0.5, 0.5)
    decoder = build_decoder(config)
    model = LossModel(decoder, keras.optimizers.Adam(5e-4))
    references = {image_id: [text] for image_id, text in pairs[-_DEV_PHOTOS:]}
    validation = Validation(store, vocabulary, references, beam_width=3, max_words=_LENGTH)

    def train() -> tuple[float, int]:
        start, n_captions = time.perf_counter(), 0
        for batch in batches.train_batches(seed=1, epoch=1):
            model.train_on_batch([batch.features, batch.inputs], batch.targets)
            n_captions += len(batch.inputs)
            if n_captions >= _BATCHES * _BATCH_SIZE:
                break
        rate, memory = n_captions / (time.perf_counter() - start), anonymous_memory()
        validation.cider_d(decoder)
        return rate, max(memory, anonymous_memory())

    return train
