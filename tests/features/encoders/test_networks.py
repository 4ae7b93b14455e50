import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from pipeline.backend import keras
from pipeline.errors import InputError
from pipeline.features.encoders import pooling
from pipeline.features.encoders.networks import (
    build_encoder,
    build_network,
    default_input_size,
    graph_digests,
    make_encoder_config,
    pool_maps,
    preprocessing_name,
    preprocessing_sha256,
    with_preprocessing,
)
from pipeline.features.encoders.pretrained import load_encoder
from tests.conftest import change_json

# One network of every submodule: all networks of a submodule have the same preprocessing. The
# last one is taken, because the first of `resnet` is also in `resnet50`.
NETWORKS = {
    module.__name__: [name for name in vars(module) if name[0].isupper()][-1]
    for module in vars(keras.applications).values()
    if isinstance(module, ModuleType) and any(name[0].isupper() for name in vars(module))
}
PHOTOS = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "size"), [("Xception", 299), ("MobileNet", 224), ("MobileNetV3Small", 224)]
)
def test_the_default_input_size_is_that_of_keras(name: str, size: int) -> None:
    assert default_input_size(name) == size


@pytest.mark.parametrize(
    "name", ["InceptionV3", "ResNet50", "ConvNeXtTiny", "NASNetMobile", "MobileNetV3Large"]
)
def test_networks_are_found_by_their_names(name: str) -> None:
    assert preprocessing_name(name).startswith("keras.applications.")


def preprocessing_model(name: str) -> Any:
    """Prepend the preprocessing of the network `name` to an identity network."""
    pixels = keras.Input((16, 16, 3), name="scaled")
    return with_preprocessing(keras.Model(pixels, keras.layers.Identity()(pixels)), name)


@pytest.mark.parametrize("module", NETWORKS)
def test_the_preprocessing_in_the_graph_is_keras_own(module: str) -> None:
    name = NETWORKS[module]
    assert preprocessing_name(name) == f"{module}.preprocess_input"
    keras_own = getattr(keras.applications, module.rpartition(".")[2]).preprocess_input
    expected = keras_own(PHOTOS.astype(np.float32))
    scaled = np.asarray(preprocessing_model(name).predict_on_batch(PHOTOS))
    assert scaled.dtype == np.float32
    assert scaled.std() > 0.5
    np.testing.assert_allclose(scaled, expected, atol=2e-6, rtol=0)


# The networks' classes, with the smallest inputs that they take. Small ones of different kinds are
# compared by `make test`, all by `make soak`.
SIZES = {"Xception": 71, "InceptionV3": 75, "InceptionResNetV2": 75}
COMPARED = {"EfficientNetB0", "MobileNetV3Small"}
ALL_NETWORKS = [
    pytest.param(name, marks=[] if name in COMPARED else [pytest.mark.soak])
    for name in vars(keras.applications)
    if name[0].isupper()
]


def keras_own_network(monkeypatch: pytest.MonkeyPatch, name: str, size: int) -> Any:
    """Build Keras' own network for its official weights; only their download is left out."""
    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about sizes that the weights were not trained on
        patch.setattr("keras.src.utils.file_utils.get_file", lambda *_, **__: "weights.h5")
        patch.setattr(keras.Model, "load_weights", lambda *_: None)
        return getattr(keras.applications, name)(include_top=False, input_shape=(size, size, 3))


def set_lively_weights(network: Any, images: Any) -> None:
    """Set random weights with which photos have different features, also in deep networks."""
    random = np.random.default_rng(0)
    for weight in network.weights:
        if weight.path.endswith("kernel"):
            depthwise = "depthwise" in weight.path or "_dw_" in weight.path
            inputs = np.prod(weight.shape[: 2 if depthwise else len(weight.shape) - 1])
            weight.assign(random.normal(0, np.sqrt(2 / inputs), weight.shape))
        elif weight.path.endswith("gamma"):
            weight.assign(random.normal(1, 0.1, weight.shape))
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
        elif isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    network(images, training=True)  # normalizes by the statistics of these images


@pytest.mark.parametrize("name", ALL_NETWORKS)
def test_every_network_computes_what_keras_own_does_with_official_weights(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    size = SIZES.get(name, 64)
    photos = np.random.default_rng(1).integers(0, 256, (4, size, size, 3), np.uint8)
    photos[1] //= 4  # a dark photo
    photos[2, :, :, 2] = 0  # a yellow one
    module = getattr(keras.applications, preprocessing_name(name).split(".")[-2])
    images = module.preprocess_input(photos.astype(np.float32))
    keras_own = keras_own_network(monkeypatch, name, size)
    set_lively_weights(keras_own, images)
    network = build_network(name, size)
    network.set_weights(keras_own.get_weights())
    expected = np.mean(keras_own(images), axis=(1, 2))
    encoder = with_preprocessing(pool_maps(name, network, "average", 1), name)
    vectors = np.asarray(encoder(photos))
    largest = np.abs(expected).max()
    assert np.isfinite(largest)
    assert np.abs(expected[1:] - expected[0]).max(axis=1).min() > 0.05 * largest > 0
    np.testing.assert_allclose(vectors, expected, rtol=1e-3, atol=1e-4 * largest)
    sides = [maps.shape[1] for maps in pooling.scale_maps(network)]
    assert len(sides) >= 3
    assert all(1.5 * small <= large <= 3 * small for small, large in pairwise(sides))


def test_the_compared_networks_cover_every_kind_of_preprocessing() -> None:
    # None; scaled to -1 to 1; BGR minus the mean; zero mean and unit variance.
    assert len({preprocessing_sha256(name) for name in NETWORKS.values()}) == 4


def test_a_network_with_its_preprocessing_takes_pixels(tiny_encoder: Path) -> None:
    network = load_encoder(tiny_encoder)
    pixel_network = with_preprocessing(network, "MobileNet")
    shapes = (pixel_network.input_shape, pixel_network.output_shape)
    assert shapes == ((None, 32, 32, 3), (None, 1024))
    assert pixel_network.input.dtype == "uint8"
    photos = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    scaled = keras.applications.mobilenet.preprocess_input(photos.astype(np.float32))
    expected = network.predict_on_batch(scaled)
    assert np.std(expected) > 0.1
    np.testing.assert_allclose(
        pixel_network.predict_on_batch(photos), expected, atol=1e-5, rtol=1e-5
    )


def test_preprocessings_with_the_same_output_have_the_same_digest() -> None:
    assert preprocessing_sha256("Xception") == preprocessing_sha256("Xception")
    assert preprocessing_sha256("Xception") == preprocessing_sha256("InceptionV3")
    assert preprocessing_sha256("Xception") != preprocessing_sha256("ResNet50")
    # EfficientNet scales inside the network.
    assert preprocessing_sha256("EfficientNetB0") == preprocessing_sha256("ConvNeXtTiny")


@pytest.mark.parametrize(
    "function", [default_input_size, preprocessing_sha256, lambda name: build_encoder(name, 64)]
)
@pytest.mark.parametrize("name", ["Exception", "xception", "preprocess_input", "Model", ""])
def test_an_unknown_network_is_refused_with_a_list_of_networks(
    function: Callable[[str], Any], name: str
) -> None:
    with pytest.raises(InputError) as caught:
        function(name)
    message = str(caught.value)
    assert message.startswith(f"params.yaml: encoder.name {name!r} is not a network")
    assert ", Xception" in message
    assert "\n" not in message


def test_an_input_size_too_small_for_the_network_is_refused() -> None:
    with pytest.raises(InputError, match=r"encoder\.input_size 70 does not fit Xception .*71"):
        build_encoder("Xception", 70)


def test_each_pooling_has_its_output_shape() -> None:
    assert build_encoder("MobileNet", 64).output_shape == (None, 1024)
    assert build_encoder("MobileNet", 64, "grid").output_shape == (None, 4, 1024)
    assert build_encoder("MobileNet", 64, "quarters").output_shape == (None, 4, 1024)


def test_the_mean_over_the_grid_is_the_average_pooled_vector(
    tiny_encoder: Path, tmp_path: Path
) -> None:
    # The weights do not depend on the input size: a larger input gives a grid of four positions.
    for name in ("encoder.json", "encoder.weights.h5"):
        (tmp_path / name).write_bytes((tiny_encoder / name).read_bytes())
    graphs = graph_digests("MobileNet", build_network("MobileNet", 64))
    change_json(tmp_path / "encoder.json", {"input_size": 64, "graphs_sha256": graphs})
    pooled, grid = load_encoder(tmp_path), load_encoder(tmp_path, "grid")
    photos = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    positions = np.asarray(grid.predict_on_batch(photos))
    assert positions.shape == (2, 4, 1024)
    assert positions.std(axis=1).max() > 0.1
    assert np.allclose(
        positions.mean(axis=1), pooled.predict_on_batch(photos), atol=1e-5, rtol=1e-5
    )


def test_grid_positions_are_in_reading_order() -> None:
    network = build_encoder("MobileNet", 64, "grid")
    map_model = keras.Model(network.input, network.layers[-2].output)
    photos = np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32)
    positions, maps = network.predict_on_batch(photos), map_model.predict_on_batch(photos)
    assert np.array_equal(positions[0], maps[0].reshape(4, 1024))
    assert np.array_equal(positions[0, 1], maps[0, 0, 1])
    assert not np.array_equal(positions[0, 1], positions[0, 2])


@pytest.mark.parametrize("side", [pytest.param(1, marks=pytest.mark.soak), 2, 3])
def test_quarters_overlap_in_the_middle_of_maps_with_an_odd_side(side: int) -> None:
    network = build_encoder("MobileNet", 32 * side, "quarters")
    grid = build_encoder("MobileNet", 32 * side, "grid")
    grid.set_weights(network.get_weights())
    shape = (2, 32 * side, 32 * side, 3)
    photos = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    maps = np.asarray(grid.predict_on_batch(photos)).reshape(2, side, side, 1024)
    end_of_first, start_of_second = (side + 1) // 2, side // 2
    parts = [
        maps[:, :end_of_first, :end_of_first],
        maps[:, :end_of_first, start_of_second:],
        maps[:, start_of_second:, :end_of_first],
        maps[:, start_of_second:, start_of_second:],
    ]
    expected = np.stack([part.mean(axis=(1, 2)) for part in parts], axis=1)
    np.testing.assert_allclose(network.predict_on_batch(photos), expected, rtol=1e-4, atol=1e-6)


# Scales.


def means(network: Any, names: list[str], photos: Any) -> Any:
    """Return the means over all positions of layers' outputs, concatenated."""
    outputs = [network.get_layer(name).output for name in names]
    maps = keras.Model(network.input, outputs).predict_on_batch(photos)
    return np.concatenate([np.mean(output, axis=(1, 2)) for output in maps], axis=-1)


@pytest.mark.parametrize(
    ("name", "size", "layers"),
    [
        # The inputs of convolutions with stride 2, before padding.
        ("MobileNet", 64, ["conv_pw_13_relu", "conv_pw_11_relu", "conv_pw_5_relu"]),
        # A sum of residuals, as rectified by the next block.
        ("Xception", 71, ["block14_sepconv2_act", "block13_sepconv1_act"]),
        # Concatenated branches.
        ("InceptionV3", 75, ["mixed10", "mixed7"]),
    ],
)
def test_scales_are_the_last_maps_of_each_size(name: str, size: int, layers: list[str]) -> None:
    keras.utils.set_random_seed(0)
    network = build_encoder(name, size, "average", len(layers))
    photos = np.random.default_rng(0).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)
    vectors = np.asarray(network.predict_on_batch(photos))
    expected = means(network, layers, photos)
    assert expected.std(axis=1).min() > 0
    np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-7)


def test_the_scales_of_nasnet_are_the_outputs_of_its_cells() -> None:
    # Its cells also read the output of the cell before the last one.
    network = build_network("NASNetMobile", 64)
    last, *larger = pooling.scale_maps(network)
    cells = ["normal_concat_8", "normal_concat_3", "reduction_concat_stem_1", "stem_bn1"]
    assert last is network.output
    assert [maps._keras_history.operation.input for maps in larger] == [
        network.get_layer(name).output for name in cells
    ]


def test_quarters_contain_every_scale() -> None:
    quarters = build_encoder("MobileNet", 64, "quarters", 2)
    average = build_encoder("MobileNet", 64, "average", 2)
    last = build_encoder("MobileNet", 64, "quarters")
    for other in (average, last):
        other.set_weights(quarters.get_weights())
    photos = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    parts = np.asarray(quarters.predict_on_batch(photos))
    assert parts.shape == (2, 4, 1024 + 512)
    np.testing.assert_allclose(parts.mean(axis=1), average.predict_on_batch(photos), rtol=1e-4)
    last_scale = last.predict_on_batch(photos)
    np.testing.assert_allclose(parts[..., :1024], last_scale, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "size", "sides", "window"),
    [
        ("MobileNet", 64, (2, 4), 2),
        ("Xception", 71, (3, 5), 2),
        # Its convolutions are not padded: 17 positions become 8, or here 3 become 1.
        ("InceptionV3", 75, (1, 3), 3),
        ("InceptionV3", 139, (3, 7), 3),
        ("InceptionV3", 224, (5, 12), 4),
    ],
)
def test_larger_maps_are_pooled_to_the_grid_of_the_smallest(
    name: str, size: int, sides: tuple[int, int], window: int
) -> None:
    small_side, large_side = sides
    grid = build_encoder(name, size, "grid", 2)
    larger = keras.Model(grid.input, grid.get_layer(f"scale_{large_side}").output)
    photos = np.random.default_rng(0).uniform(-1, 1, (1, size, size, 3)).astype(np.float32)
    maps = np.asarray(larger.predict_on_batch(photos))[0]
    assert maps.shape[:2] == (large_side, large_side)
    expected = [
        maps[2 * y : 2 * y + window, 2 * x : 2 * x + window].mean(axis=(0, 1))
        for y in range(small_side)
        for x in range(small_side)
    ]
    positions = np.asarray(grid.predict_on_batch(photos))[0]
    assert len(positions) == small_side * small_side
    np.testing.assert_allclose(positions[:, -maps.shape[2] :], expected, rtol=1e-4, atol=1e-7)


def test_three_scales_of_inceptionv3_without_padding_fit_a_grid() -> None:
    # 11, 24 and 50 positions per row.
    assert build_encoder("InceptionV3", 420, "grid", 3).output_shape == (None, 121, 3104)


def test_more_scales_than_a_network_has_are_refused() -> None:
    with pytest.raises(InputError, match=r"extract\.scales is 9, but mobilenet.* has only 5: set"):
        build_encoder("MobileNet", 32, "average", 9)


def test_the_config_describes_the_network_of_the_installed_keras() -> None:
    config = make_encoder_config("MobileNet", 32, "random", "a" * 64)
    assert (config.encoder, config.input_size) == ("MobileNet", 32)
    assert (config.weights_source, config.weights_sha256) == ("random", "a" * 64)
    assert config.preprocessing == "keras.applications.mobilenet.preprocess_input"
    assert config.preprocessing_sha256 == preprocessing_sha256("MobileNet")
