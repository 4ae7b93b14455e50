from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.backend import keras
from pipeline.captioner.decoders.decoder import build_decoder
from pipeline.captioner.model_config import DecoderConfig
from pipeline.captioner.training.batches import Batches
from pipeline.captioner.training.cross_entropy import CrossEntropy
from pipeline.captioner.training.fit import FitLoop
from pipeline.captioner.training.history import EpochRow
from pipeline.captioner.training.loss import LossModel
from pipeline.captioner.training.optimizer import OptimizerConfig
from tests.captioner.training import test_fit, test_self_critical
from tests.support.captioner import (
    CAPTIONS,
    Killed,
    make_batches,
    make_store,
    make_vocabulary,
    weight_bytes,
)

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="only TensorFlow generalizes graphs"
)


def make_loop(folder: Path, phase: str) -> FitLoop:
    """Return a phase whose batches have several lengths and sizes."""
    cider_d = test_fit.make_cider_d(folder)
    if phase == "self_critical":
        return replace(test_self_critical.make_loop(folder, epochs=2), cider_d=cider_d)
    loop = test_fit.make_loop(folder, epochs=2, captions=CAPTIONS, cider_d=cider_d)
    store = make_store(folder / "dev.h5")
    return replace(loop, dev_batches=make_batches(store, CAPTIONS, batch_size=3))


@pytest.mark.parametrize("phase", ["cross_entropy", "self_critical"])
def test_no_batch_of_a_training_gets_a_graph_of_its_own(
    phase: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = 0
    compute_loss = LossModel.compute_loss

    def count(*arguments: Any, **options: Any) -> Any:  # runs only while a graph is traced
        nonlocal graphs
        graphs += 1
        return compute_loss(*arguments, **options)

    monkeypatch.setattr(LossModel, "compute_loss", count)
    loop = make_loop(tmp_path, phase)
    graphs_of_search = loop.decoder.graphs
    searched = graphs_of_search.start, graphs_of_search.step, graphs_of_search.logits
    by_epoch: list[list[int]] = []

    def record(_: Sequence[EpochRow] = ()) -> None:
        traced = [graph.predict_function.experimental_get_tracing_count() for graph in searched]
        by_epoch.append([graphs, *traced])

    trace = FitLoop._trace

    def trace_and_record(self: FitLoop, eval_model: Any) -> None:
        trace(self, eval_model)
        record()

    monkeypatch.setattr(FitLoop, "_trace", trace_and_record)
    replace(loop, on_epoch_end=record).run()
    # One graph for the first shape and one for all others, of training, validation and search.
    assert by_epoch == [[4, 2, 2, 2]] * 3


def test_tracing_changes_nothing(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, "cross_entropy")
    before = [variable.numpy().tobytes() for variable in loop._state()]
    loop._trace(LossModel(loop.decoder))
    assert [variable.numpy().tobytes() for variable in loop._state()] == before


@pytest.mark.soak
def test_a_training_killed_after_each_epoch_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Large enough for TensorFlow to compute a graph of fixed sizes in another order.
    captions = [
        (f"{i % 8}.jpg", " ".join(f"w{(i * i + j * (i + 3)) % 800}" for j in range(2 + i * 5 % 7)))
        for i in range(400)
    ]
    vocabulary = make_vocabulary(captions)

    def make_wide_loop(folder: Path) -> FitLoop:
        store = make_store(folder / "features.h5", shape=(2776,))
        keras.utils.set_random_seed(1)
        config = DecoderConfig("merge", len(vocabulary), (2776,), 256, 256, 0.3, 0.5)
        decoder = build_decoder(config)
        batches = Batches(captions, store, vocabulary, 16, 50)
        phase = CrossEntropy(
            decoder, batches, OptimizerConfig(0.01), 3, 5, label_smoothing=0.1, scheduled_sampling=1
        )
        dev_batches = Batches(captions[:20], store, vocabulary, 8, 50)
        loop = test_fit.make_loop(folder, epochs=3)
        return replace(loop, decoder=decoder, phase=phase, dev_batches=dev_batches)

    whole = make_wide_loop(tmp_path / "whole")
    whole.run()
    for _ in range(3):
        loop = make_wide_loop(tmp_path / "killed")
        save = loop.checkpoint.save

        def save_and_kill(arrays: dict[str, Any], metadata: dict[str, Any]) -> None:
            save(arrays, metadata)  # noqa: B023
            if len(metadata["history"]) < 3:
                raise Killed

        monkeypatch.setattr(loop.checkpoint, "save", save_and_kill)
        try:
            loop.run()
        except Killed:
            continue
    assert loop.history == whole.history
    assert weight_bytes(loop.decoder) == weight_bytes(whole.decoder)
