from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from pipeline.backend import keras
from pipeline.captioner.decoders.decoder import DECODERS, Decoder, build_decoder
from pipeline.captioner.model_config import DecoderConfig
from pipeline.captioner.training.initialization import set_feature_mean
from pipeline.text.vocabulary import PAD, START
from tests.support.captioner import logits_of, make_decided_decoder, make_decoder, vectors

IDS = np.array([[START, 4, 5, 6, 7], [START, 9, 9, 4, 2], [START, 8, 4, 3, 10]], np.int32)
SHAPES = [(6,), (4, 6)]


def as_list(value: Any) -> list[Any]:
    arrays = value if isinstance(value, list | tuple) else [value]
    return [keras.ops.convert_to_numpy(array) for array in arrays]


def logits_step_by_step(decoder: Decoder, features: Any, ids: Any) -> Any:
    state = as_list(decoder.graphs.start(features))
    found = []
    for position in range(ids.shape[1]):
        logits, *state = as_list(decoder.graphs.step([ids[:, position], *state]))
        found.append(logits)
    return np.stack(found, axis=1)


# What a decoder can use.
CASES = [
    (name, shape) for name in DECODERS for shape in SHAPES if (name, shape) != ("attention", (6,))
]
every_decoder = pytest.mark.parametrize(
    ("name", "shape"), CASES, ids=[f"{name}-{len(shape)}d" for name, shape in CASES]
)


# What a decoder may have beside.
OPTIONS: dict[str, Any] = {"tied_embeddings": True, "feature_norm": "l2", "feature_noise": 0.5}
SEEING: dict[str, Any] = {"feature_norm": "center", "spatial_residual_size": 3}


@pytest.mark.parametrize("options", [{}, OPTIONS, SEEING], ids=["plain", "options", "seeing"])
@every_decoder
def test_whole_sequences_and_single_steps_give_equal_logits(
    name: str, shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    decoder = make_decided_decoder(feature_shape=shape, name=name, **options)
    assert decoder.config.name == name
    features = vectors(shape, 3)
    whole = logits_of(decoder, features, IDS)
    assert whole.shape == (3, 5, decoder.config.vocabulary_size)
    greatest = np.abs(whole).max()
    assert greatest > 0.5
    found = logits_step_by_step(decoder, features, IDS)
    np.testing.assert_allclose(found, whole, atol=max(1e-5, 1e-6 * greatest), rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=["pooled", "grid"])
@pytest.mark.parametrize("count", [1, 3])
def test_a_search_gets_the_same_logits_as_arrays(shape: tuple[int, ...], count: int) -> None:
    decoder = make_decided_decoder(feature_shape=shape)
    features = vectors(shape, count)
    state = decoder.begin(features)
    found = []
    for words in IDS[:count].T:
        logits, state = decoder.advance(np.ascontiguousarray(words), state)
        found.append(logits)
    assert all(type(array) is np.ndarray for array in (*found, *state))
    whole = logits_of(decoder, features, IDS[:count])
    np.testing.assert_allclose(np.stack(found, axis=1), whole, atol=1e-5)


def test_a_state_of_one_array_is_a_list_too() -> None:
    image = keras.Input((6,), name="features")
    start = keras.Model(image, keras.layers.Dense(4)(image))
    decoder = make_decided_decoder()
    decoder = replace(decoder, graphs=decoder.graphs._replace(start=start))
    assert [array.shape for array in decoder.begin(vectors()[:3])] == [(3, 4)]


@pytest.mark.parametrize("shape", SHAPES, ids=["pooled", "grid"])
def test_padding_on_the_right_changes_nothing_before_it(shape: tuple[int, ...]) -> None:
    decoder = make_decided_decoder(feature_shape=shape)
    features = vectors(shape, 3)
    padded = np.pad(IDS, ((0, 0), (0, 3)), constant_values=PAD)
    np.testing.assert_allclose(
        logits_of(decoder, features, padded)[:, : IDS.shape[1]],
        logits_of(decoder, features, IDS),
        rtol=1e-6,  # float32: products of other shapes add up in another order
        atol=1e-6,
    )


def test_a_word_depends_on_the_photo_and_on_the_words_before_it_alone() -> None:
    decoder = make_decided_decoder()
    features = vectors()[:3]
    before = logits_of(decoder, features, IDS)
    other_last = IDS.copy()
    other_last[:, -1] = 12
    after = logits_of(decoder, features, other_last)
    np.testing.assert_allclose(after[:, :-1], before[:, :-1], atol=1e-6)
    assert np.abs(after[:, -1] - before[:, -1]).max(axis=-1).min() > 0.01
    other_photos = logits_of(decoder, features[::-1].copy(), IDS)
    assert np.abs(other_photos[0] - before[0]).max(axis=-1).min() > 0.01


def test_the_three_graphs_share_one_set_of_weights() -> None:
    decoder = make_decided_decoder()
    features = vectors()[:3]
    before = logits_step_by_step(decoder, features, IDS)
    decoder.network.set_weights([2 * weight for weight in decoder.network.get_weights()])
    after = logits_step_by_step(decoder, features, IDS)
    assert np.abs(after - before).max() > 0.5
    np.testing.assert_allclose(after, logits_of(decoder, features, IDS), atol=1e-4)


def test_dropout_is_for_learning_alone() -> None:
    decoder = make_decided_decoder()
    features = vectors()[:3]
    np.testing.assert_array_equal(
        logits_of(decoder, features, IDS), logits_of(decoder, features, IDS)
    )
    learning = as_list(decoder.network([features, IDS], training=True))[0]
    assert np.abs(learning - logits_of(decoder, features, IDS)).max() > 0.01


def test_initial_weights_follow_from_the_seed() -> None:
    built = [make_decoder(seed=seed).network.get_weights() for seed in (1, 1, 2)]
    assert all(np.array_equal(a, b) for a, b in zip(built[0], built[1], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(built[0], built[2], strict=True))


def test_a_config_rebuilds_the_decoder() -> None:
    decoder = make_decided_decoder()
    again = build_decoder(DecoderConfig(**asdict(decoder.config)))
    assert again.config == decoder.config
    again.network.set_weights(decoder.network.get_weights())
    np.testing.assert_array_equal(
        logits_of(again, vectors()[:3], IDS), logits_of(decoder, vectors()[:3], IDS)
    )


@every_decoder
def test_features_of_one_length_say_the_same_however_long_they_were(
    name: str, shape: tuple[int, ...]
) -> None:
    features = vectors(shape, 3)
    longer = features * np.array([0.1, 2.0, 50.0], np.float32).reshape(3, *[1] * len(shape))
    for norm, same in (("l2", True), ("none", False)):
        decoder = make_decided_decoder(feature_shape=shape, name=name, feature_norm=norm)
        apart = np.abs(logits_of(decoder, longer, IDS) - logits_of(decoder, features, IDS))
        # Where a grid is seen as a whole its mean is made so long.
        assert (apart.max() < 1e-3) == same


@every_decoder
def test_what_photos_have_in_common_says_nothing_where_it_is_taken_off(
    name: str, shape: tuple[int, ...]
) -> None:
    features = vectors(shape, 8)
    common = np.linspace(-3, 3, shape[-1], dtype=np.float32)
    for norm, same in (("center", True), ("none", False)):
        told = []
        for photos in (features, features + common):
            decoder = make_decided_decoder(feature_shape=shape, name=name, feature_norm=norm)
            if norm == "center":
                set_feature_mean(decoder, [photos[:3], photos[3:]])
            told.append(logits_of(decoder, photos[:3], IDS))
        assert (np.abs(told[0] - told[1]).max() < 1e-3) == same


def test_the_mean_is_of_photos_and_places_and_is_not_learned() -> None:
    features = vectors((4, 6), 8)
    decoder = make_decoder(feature_shape=(4, 6), name="attention", feature_norm="center")
    set_feature_mean(decoder, [features[:5], features[5:]])
    layer = decoder.network.get_layer("feature_norm")
    assert not layer.trainable_variables
    np.testing.assert_allclose(layer.get_weights()[0], features.mean(axis=(0, 1)), atol=1e-6)


@pytest.mark.parametrize("name", [name for name in DECODERS if name != "attention"])
@pytest.mark.parametrize("spatial_residual_size", [0, 1, 3])
def test_a_layout_tells_which_place_is_where(name: str, spatial_residual_size: int) -> None:
    decoder = make_decided_decoder(
        feature_shape=(4, 6), name=name, spatial_residual_size=spatial_residual_size
    )
    features = vectors((4, 6), 3)
    mirrored = features[:, [1, 0, 3, 2]]
    apart = np.abs(logits_of(decoder, mirrored, IDS) - logits_of(decoder, features, IDS))
    assert (apart.max() > 1e-3) == bool(spatial_residual_size)


def test_places_that_are_all_alike_have_no_layout_whatever_they_show() -> None:
    network = make_decided_decoder(feature_shape=(4, 6), spatial_residual_size=3).network
    layout = keras.Model(network.inputs[0], network.get_layer("layout").output)
    alike = np.repeat(vectors((1, 6), 3), 4, axis=1)
    np.testing.assert_allclose(layout.predict_on_batch(alike), np.zeros((3, 4, 3)), atol=1e-5)


def test_a_photo_of_one_vector_has_no_layout() -> None:
    weights = [
        [w.shape for w in make_decoder(spatial_residual_size=size).network.weights]
        for size in (0, 8)
    ]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(("noise", "noisy"), [(0.0, False), (0.5, True)])
def test_noise_is_for_learning_alone(noise: float, noisy: bool) -> None:
    decoder = make_decoder(dropout=0.0, feature_noise=noise)
    features = vectors()[:3]
    told = logits_of(decoder, features, IDS)
    np.testing.assert_array_equal(told, logits_of(decoder, features, IDS))
    learning = as_list(decoder.network([features, IDS], training=True))[0]
    assert (np.abs(learning - told).max() > 1e-3) == noisy


def test_tied_embeddings_are_one_table_for_both_ways() -> None:
    tied, apart = (make_decoder(tied_embeddings=tied).network for tied in (True, False))
    size = tied.get_layer("embedding").get_weights()[0].shape[0]
    tables = [
        [weight for weight in network.get_weights() if size in weight.shape and weight.ndim == 2]
        for network in (tied, apart)
    ]
    assert [len(found) for found in tables] == [1, 2]
