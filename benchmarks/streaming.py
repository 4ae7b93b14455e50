"""Training from a store that does not fit: attention over the grids of 8,000 photos."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.harness import Row, Worker
from benchmarks.limits import can_limit, limit_memory, remove_limits
from benchmarks.reading import write_noise
from benchmarks.usage import own_memory

_PHOTOS = 8_000
_SHAPE = (100, 2048)
_MEMORY = 2 << 30
_WORDS, _LENGTH = 774, 11
_BATCHES = 60
_DEV = 1_000  # of the photos, to be captioned


def rows(_: Path) -> list[Row]:
    """Train and validate in a process that may have less memory than the store has bytes."""
    with tempfile.TemporaryDirectory() as folder:
        write_noise(Path(folder), _PHOTOS, _SHAPE)
        (Path(folder) / "features.npy").unlink()
        size = (Path(folder) / "features.h5").stat().st_size
        with Worker(_make, Path(folder) / "features.h5") as worker:
            captions, own = worker.run()
    remove_limits()
    within = f"{_MEMORY >> 20} MiB" if can_limit() else "no limit: none can be set here"
    return [
        Row(
            f"training attention from a store of {size / 1e9:.1f} GB, validated on {_DEV:,} photos",
            f"within {within}: {captions:.0f} captions/s, {own / 2**20:.0f} MiB of its own",
            "it trains",
        )
    ]


def _make(path: Path) -> Callable[[], tuple[float, int]]:
    """Return what trains and returns captions a second and bytes that are not the store's."""
    limit_memory(_MEMORY)
    from pipeline.backend import keras  # noqa: PLC0415  (its memory counts too)
    from pipeline.captioner.decoders.decoder import build_decoder  # noqa: PLC0415
    from pipeline.captioner.model_config import DecoderConfig  # noqa: PLC0415
    from pipeline.captioner.training.batches import Batches  # noqa: PLC0415
    from pipeline.captioner.training.loss import compile_network  # noqa: PLC0415
    from pipeline.captioner.training.validation import Validation  # noqa: PLC0415
    from pipeline.features.store import FeatureStore  # noqa: PLC0415
    from pipeline.text.vocabulary import Vocabulary  # noqa: PLC0415

    store = FeatureStore.open(path)
    words = [f"w{number}" for number in range(_WORDS)]
    drawn = np.random.default_rng(0).choice(words, (_PHOTOS, _LENGTH))
    pairs = [(i, " ".join(text)) for i, text in zip(store.image_ids, drawn, strict=True)]
    vocabulary = Vocabulary.build(words, 1, "")
    batches = Batches(pairs, store, vocabulary, batch_size=64, max_words=50)
    config = DecoderConfig("attention", len(vocabulary), store.shape, 256, 256, 0.5, 0.5)
    decoder = build_decoder(config)
    network = decoder.network
    compile_network(network, keras.optimizers.Adam(5e-4))
    references = {image_id: [text] for image_id, text in pairs[-_DEV:]}
    validation = Validation(store, vocabulary, references, beam_width=3, max_words=_LENGTH)

    def run() -> tuple[float, int]:
        start, done = time.perf_counter(), 0
        for batch in batches.train_batches(seed=1, epoch=1):
            network.train_on_batch([batch.features, batch.inputs], batch.targets)
            done += len(batch.inputs)
            if done >= _BATCHES * 64:
                break
        rate, own = done / (time.perf_counter() - start), own_memory()
        validation.cider_d(decoder)
        return rate, max(own, own_memory())

    return run
