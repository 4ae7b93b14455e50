from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.captioner.training.checkpoint import Checkpoint
from pipeline.captioner.training.fit import FitLoop
from pipeline.captioner.training.history import EpochRow, SelfCriticalEpoch
from pipeline.captioner.training.self_critical import SelfCritical, advantages
from pipeline.metrics.cider import CiderD
from pipeline.metrics.references import References
from pipeline.metrics.tokenizer import tokenize
from pipeline.text.vocabulary import START
from tests.support.captioner import (
    SAME_LENGTH_DEV_CAPTIONS,
    Killed,
    make_batches,
    make_decoder,
    make_store,
    make_vocabulary,
    sequence_logits,
    vectors,
    weight_bytes,
)

pytestmark = pytest.mark.usefixtures("untraced")

# Most words occur in one photo only: the idf of a word that all photos have is 0.
REFERENCES = {
    "0.jpg": ["A dog runs .", "a dog"],
    "1.jpg": ["two cats sleep"],
    "2.jpg": ["grass on grass", "Grass"],
    "3.jpg": ["a bed"],
}


def test_advantages_are_relative_to_the_mean_of_a_photos_other_samples() -> None:
    result = advantages(np.array([[10.0, 20.0, 60.0], [5.0, 5.0, 5.0]]))
    np.testing.assert_allclose(result, [[10 - 40, 20 - 35, 60 - 15], [0, 0, 0]], atol=1e-12)


@given(
    st.integers(2, 5).flatmap(
        lambda samples: st.lists(
            st.lists(st.floats(0, 1000), min_size=samples, max_size=samples), min_size=1, max_size=4
        )
    )
)
def test_advantages_equal_explicit_leave_one_out(rewards: list[list[float]]) -> None:
    expected = [
        [reward - np.mean([*row[:i], *row[i + 1 :]]) for i, reward in enumerate(row)]
        for row in rewards
    ]
    np.testing.assert_allclose(advantages(np.array(rewards)), expected, atol=1e-8)


def ignore(_: Sequence[EpochRow]) -> None:
    """Do nothing at the end of an epoch."""


def make_loop(
    folder: Path,
    *,
    initial_seed: int = 1,
    epochs: int = 3,
    samples: int = 4,
    learning_rate: float = 0.05,
    on_epoch_end: Callable[[Sequence[EpochRow]], None] = ignore,
) -> FitLoop:
    """Return the self-critical phase of a decoder with initial weights from a seed."""
    store = make_store(folder / "features.h5")
    decoder = make_decoder(seed=initial_seed, dropout=0.2)
    phase = SelfCritical(
        decoder,
        store,
        make_vocabulary(),
        list(REFERENCES),
        CiderD(References([[tokenize(raw) for raw in group] for group in REFERENCES.values()])),
        samples=samples,
        batch_size=2,
        learning_rate=learning_rate,
        max_words=3,
        seed=5,
    )
    return FitLoop(
        decoder=decoder,
        phase=phase,
        dev_batches=make_batches(store, SAME_LENGTH_DEV_CAPTIONS),
        cider_d=lambda _: 0.0,
        epochs=epochs,
        patience=99,
        select="cider",
        select_tolerance=0.0,
        average_epochs=1,
        checkpoint=Checkpoint(folder, "fingerprint"),
        on_epoch_end=on_epoch_end,
    )


def rewards_of(loop: FitLoop) -> list[float]:
    return [row.reward for row in loop.history if isinstance(row, SelfCriticalEpoch)]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> FitLoop:
    """Train for three epochs without interruption."""
    loop = make_loop(tmp_path_factory.mktemp("uninterrupted"))
    loop.run()
    return loop


def test_the_training_step_computes_what_the_samples_were_drawn_from(tmp_path: Path) -> None:
    loop = make_loop(tmp_path)
    assert isinstance(loop.phase, SelfCritical)
    features, ids = vectors()[:3], np.array([[START, 4, 5]] * 3, np.int32)
    kernel, bias = loop.decoder.graphs.output.weights()
    words = np.asarray(loop.phase._model([features, ids], training=True))
    trained = words @ np.asarray(kernel) + np.asarray(bias)
    np.testing.assert_allclose(trained, sequence_logits(loop.decoder, features, ids), atol=1e-6)
    # With dropout it would be something else.
    dropped = np.asarray(loop.decoder.network([features, ids], training=True))
    assert not np.allclose(trained, dropped, atol=1e-3)


def test_the_rewards_of_sampled_captions_rise(tmp_path: Path) -> None:
    loop = make_loop(tmp_path, epochs=30, samples=10)
    loop.run()
    rewards = rewards_of(loop)
    assert len(rewards) == 30
    assert np.mean(rewards[-8:]) > 1.5 * np.mean(rewards[:8])


def test_a_killed_second_phase_resumes_with_an_identical_result(
    uninterrupted: FitLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = make_loop(tmp_path)
    save = killed.checkpoint.save

    def save_and_kill(arrays: dict[str, object], metadata: dict[str, object]) -> None:
        save(arrays, metadata)
        if len(killed.history) == 2:
            raise Killed

    monkeypatch.setattr(killed.checkpoint, "save", save_and_kill)
    with pytest.raises(Killed):
        killed.run()
    assert killed.history == uninterrupted.history[:2]  # equal seeds, equal epochs
    seen: list[int] = []
    # Other initial weights: everything must come from the checkpoint.
    resumed = make_loop(
        tmp_path, initial_seed=2, on_epoch_end=lambda history: seen.append(len(history))
    )
    resumed.run()
    assert seen == [3]
    assert resumed.history == uninterrupted.history
    assert resumed.stop_reason == uninterrupted.stop_reason == "all 3 epochs done"
    assert weight_bytes(resumed.decoder) == weight_bytes(uninterrupted.decoder)
