from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.captioner.training.batches import Batch, teacher_forcing
from pipeline.features.store import FeatureStore, write_store
from pipeline.text.vocabulary import END, PAD, START, UNK
from tests.conftest import FEATURE_SPEC
from tests.support.captioner import (
    CAPTIONS,
    PHOTOS,
    make_batches,
    make_store,
    make_vocabulary,
    vectors,
)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return make_store(tmp_path / "features.h5")


def read_pairs(batches: Iterable[Batch], store: FeatureStore) -> list[tuple[str, str]]:
    """Read (image_id, caption) pairs back from batches."""
    pairs = []
    vocabulary = make_vocabulary()
    for batch in batches:
        for features, targets in zip(batch.features, batch.targets, strict=True):
            matches = [i for i in PHOTOS if np.array_equal(store.read([i])[0], features)]
            assert len(matches) == 1
            pairs.append((matches[0], vocabulary.decode(targets.tolist())))
    return pairs


@pytest.mark.parametrize("batch_size", [1, 3, 4, 10, 64])
def test_an_epoch_has_every_caption_once_with_its_own_photo(
    store: FeatureStore, batch_size: int
) -> None:
    batches = make_batches(store, batch_size=batch_size)
    assert Counter(read_pairs(batches.eval_batches(), store)) == Counter(CAPTIONS)
    assert Counter(read_pairs(batches.train_batches(1, 1), store)) == Counter(CAPTIONS)
    sizes = [len(batch.inputs) for batch in batches.train_batches(1, 1)]
    assert max(sizes) <= batch_size
    assert len(sizes) == -(-len(CAPTIONS) // batch_size)


def test_targets_are_the_successors_of_the_inputs_and_end_with_the_end_token(
    store: FeatureStore,
) -> None:
    for batch in make_batches(store).train_batches(7, 1):
        assert batch.inputs.shape == batch.targets.shape
        assert (batch.inputs[:, 0] == START).all()
        for inputs, targets in zip(batch.inputs, batch.targets, strict=True):
            length = int((targets != PAD).sum())
            assert (targets[length:] == PAD).all()
            assert (inputs[length:] == PAD).all()
            assert (inputs[:length] != PAD).all()
            assert targets[length - 1] == END
            assert inputs[1:length].tolist() == targets[: length - 1].tolist()
            assert END not in inputs
        assert batch.word_count == (batch.targets != PAD).sum()
        # No column is all padding.
        assert (batch.targets != PAD).any(axis=0).all()


def test_captions_of_similar_length_share_a_batch(store: FeatureStore) -> None:
    lengths = [
        length
        for batch in make_batches(store, batch_size=2).eval_batches()
        for length in (batch.targets != PAD).sum(axis=1)
    ]
    assert lengths == sorted(lengths)


def test_a_long_caption_is_cut_to_its_first_words_without_the_end_token(
    store: FeatureStore,
) -> None:
    captions = [("2.jpg", "a big dog runs on grass")]
    (batch,) = make_batches(store, captions, max_words=4).eval_batches()
    vocabulary = make_vocabulary()
    assert batch.targets.tolist() == [vocabulary.encode("a big dog runs")]
    assert batch.inputs.tolist() == [[START, *vocabulary.encode("a big dog")]]


def test_a_caption_with_exactly_max_words_words_is_not_cut(store: FeatureStore) -> None:
    (batch,) = make_batches(store, [("2.jpg", "a big dog runs")], max_words=4).eval_batches()
    assert batch.targets.tolist() == [[*make_vocabulary().encode("a big dog runs"), END]]


def test_unknown_words_are_trained_as_the_unknown_token(store: FeatureStore) -> None:
    (batch,) = make_batches(store, [("2.jpg", "a zebra")]).eval_batches()
    assert batch.targets.tolist() == [[make_vocabulary().ids["a"], UNK, END]]


def test_the_share_of_unknown_words_is_that_of_all_targets(store: FeatureStore) -> None:
    batches = make_batches(store, [("2.jpg", "a zebra"), ("0.jpg", "a dog runs")])
    assert batches.target_share(UNK) == pytest.approx(1 / 7)  # five words and two ends
    assert make_batches(store).target_share(UNK) == 0


def targets_of_epoch(store: FeatureStore, seed: int, epoch: int) -> list[list[list[int]]]:
    batches = make_batches(store, batch_size=2)
    return [batch.targets.tolist() for batch in batches.train_batches(seed, epoch)]


def test_the_order_depends_on_seed_and_epoch_alone(store: FeatureStore) -> None:
    batches = make_batches(store, batch_size=2)
    list(batches.train_batches(5, 1))
    np.random.seed(0)  # noqa: NPY002  (global state must not matter)
    again = [batch.targets.tolist() for batch in batches.train_batches(5, 2)]
    assert again == targets_of_epoch(store, 5, 2)


def test_the_order_differs_between_epochs_and_seeds(store: FeatureStore) -> None:
    orders = [targets_of_epoch(store, seed, epoch) for seed in (5, 6) for epoch in range(1, 5)]
    assert all(order not in orders[:position] for position, order in enumerate(orders))


def test_captions_of_equal_length_are_batched_differently_in_each_epoch(
    store: FeatureStore,
) -> None:
    captions = [(image_id, "a dog") for image_id in PHOTOS]
    batches = make_batches(store, captions, batch_size=2)
    compositions = {
        tuple(sorted(image_id for image_id, _ in read_pairs([batch], store)))
        for epoch in range(6)
        for batch in batches.train_batches(1, epoch)
    }
    assert len(compositions) > 4


def test_eval_batches_are_the_same_each_time(store: FeatureStore) -> None:
    batches = make_batches(store)
    first, second = list(batches.eval_batches()), list(batches.eval_batches())
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.targets, other.targets)
        np.testing.assert_array_equal(one.features, other.features)


def test_grid_features_keep_their_shape(tmp_path: Path) -> None:
    store = make_store(tmp_path / "features.h5", shape=(4, 6))
    batch = next(make_batches(store).eval_batches())
    assert batch.features.shape == (4, 4, 6)
    assert batch.features.dtype == np.float32


def sampled_views(batches: Iterable[Batch], store: FeatureStore) -> list[int]:
    """Return which of its photo's two views goes with each caption."""
    views = []
    for vector in np.concatenate([batch.features for batch in batches]):
        equal = (store.features == vector).all(axis=-1)
        assert equal.sum() == 1
        views.append(int(np.argwhere(equal)[0, 1]))
    return views


def test_training_samples_a_view_and_evaluation_merges_all_views(tmp_path: Path) -> None:
    path = tmp_path / "features.h5"
    shas = {image_id: f"sha256 of {image_id}" for image_id in PHOTOS}
    stored = [(list(range(len(PHOTOS))), vectors((2, 6)))]
    write_store(path, replace(FEATURE_SPEC, views="mirror"), shas, {}, stored)
    store = FeatureStore.open(path)
    batches = make_batches(store)
    for batch in batches.eval_batches():
        assert batch.features.shape[1:] == (6,)
    merged = np.concatenate([batch.features for batch in batches.eval_batches()])
    order = sorted(range(len(CAPTIONS)), key=lambda i: len(CAPTIONS[i][1].split()))
    np.testing.assert_array_equal(merged, store.read([CAPTIONS[i][0] for i in order]))
    views = [sampled_views(batches.train_batches(5, epoch), store) for epoch in range(1, 5)]
    assert {view for epoch_views in views for view in epoch_views} == {0, 1}
    assert views[0] != views[1]
    assert sampled_views(batches.train_batches(5, 1), store) == views[0]


def test_target_counts_include_the_end_token_and_leave_out_cut_words(store: FeatureStore) -> None:
    captions = [("0.jpg", "a dog"), ("1.jpg", "a zebra"), ("2.jpg", "a big dog runs")]
    counts = make_batches(store, captions, max_words=3).target_counts(len(make_vocabulary()))
    ids = make_vocabulary().ids
    # The third caption is cut: without its last word and without <end>.
    expected = {ids["a"]: 3, ids["dog"]: 2, ids["big"]: 1, UNK: 1, END: 2}
    assert {word: count for word, count in enumerate(counts.tolist()) if count} == expected
    assert len(counts) == len(make_vocabulary())


def test_sequences_are_padded_to_the_longest() -> None:
    sequences = [np.array([START, 4, END], np.int32), np.array([START, 5, 6, 7], np.int32)]
    inputs, targets = teacher_forcing(sequences)
    assert inputs.tolist() == [[START, 4, PAD], [START, 5, 6]]
    assert targets.tolist() == [[4, END, PAD], [5, 6, 7]]
    assert inputs.dtype == targets.dtype == np.int32


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    batch_size=st.integers(1, 5),
    max_words=st.integers(1, 9),
)
def test_no_word_is_lost_or_duplicated(
    store: FeatureStore, lengths: list[int], batch_size: int, max_words: int
) -> None:
    captions = [("0.jpg", " ".join(["dog"] * length)) for length in lengths]
    batches = make_batches(store, captions, batch_size, max_words)
    lengths_read = [
        int((row != PAD).sum()) for batch in batches.train_batches(1, 1) for row in batch.targets
    ]
    expected = [length + 1 if length <= max_words else max_words for length in lengths]
    assert sorted(lengths_read) == sorted(expected)
