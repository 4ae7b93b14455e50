from dataclasses import asdict
from typing import Any, get_args

import numpy as np
import pytest

from pipeline.backend import keras
from pipeline.captioner.decoders import decoder as decoder_module
from pipeline.captioner.decoders.decoder import DECODERS, Decoder, build_decoder
from pipeline.captioner.model_config import DecoderConfig
from pipeline.captioner.training.initialization import set_feature_mean
from pipeline.params import TrainParams
from pipeline.text.vocabulary import PAD, START
from tests.support.captioner import make_decoder, make_peaked_decoder, sequence_logits, vectors

IDS = np.array([[START, 4, 5, 6, 7], [START, 9, 9, 4, 2], [START, 8, 4, 3, 10]], np.int32)
SHAPES = [(6,), (4, 6)]


def as_list(value: Any) -> list[Any]:
    arrays = value if isinstance(value, list | tuple) else [value]
    return [keras.ops.convert_to_numpy(array) for array in arrays]


def logits_step_by_step(decoder: Decoder, features: Any, ids: Any) -> Any:
    *context, hidden, cell = as_list(decoder.graphs.start(features))
    all_logits = []
    for position in range(ids.shape[1]):
        inputs = [ids[:, position], *context, hidden, cell]
        outputs = vectors_out, hidden, cell = as_list(decoder.graphs.step(inputs))
        assert len(outputs) == 3
        all_logits += as_list(decoder.graphs.logits(vectors_out))
    return np.stack(all_logits, axis=1)


# Every decoder with every shape of features that it accepts.
CASES = [
    (name, shape) for name in DECODERS for shape in SHAPES if (name, shape) != ("attention", (6,))
]
every_decoder = pytest.mark.parametrize(
    ("name", "shape"), CASES, ids=[f"{name}-{len(shape)}d" for name, shape in CASES]
)


TIED_L2: dict[str, Any] = {
    "tied_embeddings": True,
    "feature_norm": "l2",
    "feature_noise": 0.5,
}
CENTERED_RESIDUAL: dict[str, Any] = {"feature_norm": "center", "spatial_residual_size": 3}


@pytest.mark.parametrize(
    "options", [{}, TIED_L2, CENTERED_RESIDUAL], ids=["defaults", "tied-l2", "centered-residual"]
)
@every_decoder
def test_whole_sequences_and_single_steps_give_equal_logits(
    name: str, shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    decoder = make_peaked_decoder(feature_shape=shape, name=name, **options)
    assert decoder.config.name == name
    features = vectors(shape, 3)
    expected = sequence_logits(decoder, features, IDS)
    assert expected.shape == (3, 5, decoder.config.vocabulary_size)
    largest = np.abs(expected).max()
    assert largest > 0.5
    logits = logits_step_by_step(decoder, features, IDS)
    np.testing.assert_allclose(logits, expected, atol=max(1e-5, 1e-6 * largest), rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=["pooled", "grid"])
@pytest.mark.parametrize("count", [1, 3])
def test_begin_and_advance_return_the_same_logits_as_numpy_arrays(
    shape: tuple[int, ...], count: int
) -> None:
    decoder = make_peaked_decoder(feature_shape=shape)
    features, rows = vectors(shape, count), np.arange(count)
    state = decoder.begin(features)
    all_logits = []
    for position in range(IDS.shape[1]):
        logits, state = decoder.advance(IDS[:count, : position + 1], rows, rows, state)
        all_logits.append(logits)
    arrays = (*all_logits, *state.context, state.hidden, state.cell)
    assert all(type(array) is np.ndarray for array in arrays)
    assert all(logits.flags.writeable for logits in all_logits)  # a search changes them
    expected = sequence_logits(decoder, features, IDS[:count])
    np.testing.assert_allclose(np.stack(all_logits, axis=1), expected, atol=1e-5)


@pytest.mark.parametrize("few_shapes", [False, True])
@every_decoder
def test_a_step_takes_the_hypotheses_of_some_photos_in_any_number(
    name: str, shape: tuple[int, ...], few_shapes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_module, "JIT_COMPILE", few_shapes)
    decoder = make_peaked_decoder(feature_shape=shape, name=name)
    features = vectors(shape, 5)
    start = np.full((5, 1), START, np.int32)
    _, state = decoder.advance(start, np.arange(5), np.arange(5), decoder.begin(features))
    # Three hypotheses of photo 1 and two of photo 4; each then gets a word of its own.
    photos, words = np.array([1, 1, 1, 4, 4]), np.array([4, 5, 6, 6, 7], np.int32)
    ids = np.column_stack([np.full(5, START), words]).astype(np.int32)
    _, state = decoder.advance(ids, photos, photos, state)
    # Of these, one of photo 1 is extended twice, and the last one of photo 4.
    parents = np.array([1, 1, 4])
    ids = np.column_stack([ids[parents], [8, 9, 4]]).astype(np.int32)
    logits, state = decoder.advance(ids, photos[parents], parents, state)
    assert state.hidden.shape == state.cell.shape == (3, 8)
    expected = sequence_logits(decoder, features[photos[parents]], ids)[:, -1]
    np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=["pooled", "grid"])
def test_padding_on_the_right_does_not_change_logits_before_it(shape: tuple[int, ...]) -> None:
    decoder = make_peaked_decoder(feature_shape=shape)
    features = vectors(shape, 3)
    padded = np.pad(IDS, ((0, 0), (0, 3)), constant_values=PAD)
    np.testing.assert_allclose(
        sequence_logits(decoder, features, padded)[:, : IDS.shape[1]],
        sequence_logits(decoder, features, IDS),
        rtol=1e-6,  # float32: the order of a sum depends on the shape of the product
        atol=1e-6,
    )


def test_logits_depend_on_the_photo_and_the_words_so_far_and_not_on_later_words() -> None:
    decoder = make_peaked_decoder()
    features = vectors()[:3]
    logits = sequence_logits(decoder, features, IDS)
    other_last_word = IDS.copy()
    other_last_word[:, -1] = 12
    changed = sequence_logits(decoder, features, other_last_word)
    np.testing.assert_allclose(changed[:, :-1], logits[:, :-1], atol=1e-6)
    assert np.abs(changed[:, -1] - logits[:, -1]).max(axis=-1).min() > 0.01
    other_photos = sequence_logits(decoder, features[::-1].copy(), IDS)
    assert np.abs(other_photos[0] - logits[0]).max(axis=-1).min() > 0.01


def test_the_three_graphs_share_one_set_of_weights() -> None:
    decoder = make_peaked_decoder()
    features = vectors()[:3]
    logits = logits_step_by_step(decoder, features, IDS)
    decoder.network.set_weights([2 * weight for weight in decoder.network.get_weights()])
    changed = logits_step_by_step(decoder, features, IDS)
    assert np.abs(changed - logits).max() > 0.5
    np.testing.assert_allclose(changed, sequence_logits(decoder, features, IDS), atol=1e-4)


def test_dropout_is_active_in_training_only() -> None:
    decoder = make_peaked_decoder()
    features = vectors()[:3]
    np.testing.assert_array_equal(
        sequence_logits(decoder, features, IDS), sequence_logits(decoder, features, IDS)
    )
    training_logits = as_list(decoder.network([features, IDS], training=True))[0]
    assert np.abs(training_logits - sequence_logits(decoder, features, IDS)).max() > 0.01


def test_initial_weights_follow_from_the_seed() -> None:
    first, same, other = (make_decoder(seed=seed).network.get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_config_rebuilds_the_decoder() -> None:
    decoder = make_peaked_decoder()
    rebuilt = build_decoder(DecoderConfig(**asdict(decoder.config)))
    assert rebuilt.config == decoder.config
    rebuilt.network.set_weights(decoder.network.get_weights())
    np.testing.assert_array_equal(
        sequence_logits(rebuilt, vectors()[:3], IDS), sequence_logits(decoder, vectors()[:3], IDS)
    )


@every_decoder
def test_with_l2_the_length_of_the_features_does_not_matter(
    name: str, shape: tuple[int, ...]
) -> None:
    features = vectors(shape, 3)
    rescaled = features * np.array([0.1, 2.0, 50.0], np.float32).reshape(3, *[1] * len(shape))
    for norm, invariant in (("l2", True), ("none", False)):
        decoder = make_peaked_decoder(feature_shape=shape, name=name, feature_norm=norm)
        difference = np.abs(
            sequence_logits(decoder, rescaled, IDS) - sequence_logits(decoder, features, IDS)
        )
        # If a grid is embedded as one vector, its mean is normalized.
        assert (difference.max() < 1e-3) == invariant


@every_decoder
def test_with_center_a_shift_of_all_features_does_not_matter(
    name: str, shape: tuple[int, ...]
) -> None:
    features = vectors(shape, 8)
    shift = np.linspace(-3, 3, shape[-1], dtype=np.float32)
    for norm, invariant in (("center", True), ("none", False)):
        logits = []
        for photos in (features, features + shift):
            decoder = make_peaked_decoder(feature_shape=shape, name=name, feature_norm=norm)
            if norm == "center":
                set_feature_mean(decoder, [photos[:3], photos[3:]])
            logits.append(sequence_logits(decoder, photos[:3], IDS))
        assert (np.abs(logits[0] - logits[1]).max() < 1e-3) == invariant


def test_the_feature_mean_is_over_photos_and_positions_and_is_not_trained() -> None:
    features = vectors((4, 6), 8)
    decoder = make_decoder(feature_shape=(4, 6), name="attention", feature_norm="center")
    set_feature_mean(decoder, [features[:5], features[5:]])
    layer = decoder.network.get_layer("feature_norm")
    assert not layer.trainable_variables
    np.testing.assert_allclose(layer.get_weights()[0], features.mean(axis=(0, 1)), atol=1e-6)


@pytest.mark.parametrize("name", [name for name in DECODERS if name != "attention"])
@pytest.mark.parametrize("spatial_residual_size", [0, 1, 3])
def test_a_spatial_residual_distinguishes_the_positions(
    name: str, spatial_residual_size: int
) -> None:
    decoder = make_peaked_decoder(
        feature_shape=(4, 6), name=name, spatial_residual_size=spatial_residual_size
    )
    features = vectors((4, 6), 3)
    mirrored = features[:, [1, 0, 3, 2]]
    difference = np.abs(
        sequence_logits(decoder, mirrored, IDS) - sequence_logits(decoder, features, IDS)
    )
    assert (difference.max() > 1e-3) == bool(spatial_residual_size)


def test_the_spatial_residual_of_equal_positions_is_zero() -> None:
    network = make_peaked_decoder(feature_shape=(4, 6), spatial_residual_size=3).network
    layer = network.get_layer("spatial_residual_projection")
    residual = keras.Model(network.inputs[0], layer.output)
    equal_places = np.repeat(vectors((1, 6), 3), 4, axis=1)
    np.testing.assert_allclose(
        residual.predict_on_batch(equal_places), np.zeros((3, 4, 3)), atol=1e-5
    )


def test_pooled_features_have_no_spatial_residual() -> None:
    shapes = [
        [weight.shape for weight in make_decoder(spatial_residual_size=size).network.weights]
        for size in (0, 8)
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(("noise", "noisy"), [(0.0, False), (0.5, True)])
def test_noise_is_added_in_training_only(noise: float, noisy: bool) -> None:
    decoder = make_decoder(dropout=0.0, feature_noise=noise)
    features = vectors()[:3]
    logits = sequence_logits(decoder, features, IDS)
    np.testing.assert_array_equal(logits, sequence_logits(decoder, features, IDS))
    training_logits = as_list(decoder.network([features, IDS], training=True))[0]
    assert (np.abs(training_logits - logits).max() > 1e-3) == noisy


def test_tied_embeddings_are_one_table_for_input_and_output() -> None:
    tied, untied = (make_decoder(tied_embeddings=tied).network for tied in (True, False))
    vocabulary_size = tied.get_layer("embedding").get_weights()[0].shape[0]
    tables = [
        [
            weight
            for weight in network.get_weights()
            if vocabulary_size in weight.shape and weight.ndim == 2
        ]
        for network in (tied, untied)
    ]
    assert [len(weights) for weights in tables] == [1, 2]


def test_params_accept_every_decoder_and_no_other() -> None:
    names = TrainParams.model_fields["decoder"].annotation
    assert get_args(names) == tuple(DECODERS)
