from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from pipeline.backend import keras
from pipeline.errors import InputError
from pipeline.features.encoders.networks import (
    build_encoder,
    default_input_size,
    make_encoder_config,
    preprocessing_name,
    preprocessing_sha256,
    with_preprocessing,
)
from pipeline.features.encoders.pretrained import load_encoder
from tests.conftest import change_json

# A network of every submodule, which has one preprocessing for all of its networks. (The last:
# the first of `resnet` is that of `resnet50` too.)
NETWORKS = {
    module.__name__: [name for name in vars(module) if name[0].isupper()][-1]
    for module in vars(keras.applications).values()
    if isinstance(module, ModuleType) and any(name[0].isupper() for name in vars(module))
}
PHOTOS = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize(("name", "size"), [("Xception", 299), ("MobileNet", 224)])
def test_the_input_size_is_the_one_keras_gives(name: str, size: int) -> None:
    assert default_input_size(name) == size


@pytest.mark.parametrize("name", ["InceptionV3", "ResNet50", "ConvNeXtTiny", "NASNetMobile"])
def test_networks_of_keras_are_known_by_their_names(name: str) -> None:
    assert preprocessing_name(name).startswith("keras.applications.")


def of_pixels(name: str) -> Any:
    """Put the preprocessing of the network `name` before one that changes nothing."""
    pixels = keras.Input((16, 16, 3), name="scaled")
    return with_preprocessing(keras.Model(pixels, keras.layers.Identity()(pixels)), name)


@pytest.mark.parametrize("module", NETWORKS)
def test_the_preprocessing_in_the_graph_is_keras_own(module: str) -> None:
    name = NETWORKS[module]
    assert preprocessing_name(name) == f"{module}.preprocess_input"
    keras_own = getattr(keras.applications, module.rpartition(".")[2]).preprocess_input
    wanted = keras_own(PHOTOS.astype(np.float32))
    scaled = np.asarray(of_pixels(name).predict_on_batch(PHOTOS))
    assert scaled.dtype == np.float32
    assert scaled.std() > 0.5
    np.testing.assert_allclose(scaled, wanted, atol=2e-6, rtol=0)


def test_every_kind_of_preprocessing_was_compared() -> None:
    # Left as it is, 1 to -1, less the mean in blue, green, red, and of unit variance.
    assert len({preprocessing_sha256(name) for name in NETWORKS.values()}) == 4


def test_a_network_with_its_preprocessing_takes_pixels(tiny_encoder: Path) -> None:
    network = load_encoder(tiny_encoder)
    whole = with_preprocessing(network, "MobileNet")
    assert (whole.input_shape, whole.output_shape) == ((None, 32, 32, 3), (None, 1024))
    assert whole.input.dtype == "uint8"
    photos = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    scaled = keras.applications.mobilenet.preprocess_input(photos.astype(np.float32))
    wanted = network.predict_on_batch(scaled)
    assert np.std(wanted) > 0.1
    np.testing.assert_allclose(whole.predict_on_batch(photos), wanted, atol=1e-5, rtol=1e-5)


def test_the_digest_of_a_preprocessing_is_of_what_it_does() -> None:
    assert preprocessing_sha256("Xception") == preprocessing_sha256("Xception")
    assert preprocessing_sha256("Xception") == preprocessing_sha256("InceptionV3")
    assert preprocessing_sha256("Xception") != preprocessing_sha256("ResNet50")
    # EfficientNet scales inside the network.
    assert preprocessing_sha256("EfficientNetB0") == preprocessing_sha256("ConvNeXtTiny")


@pytest.mark.parametrize(
    "use", [default_input_size, preprocessing_sha256, lambda name: build_encoder(name, 64)]
)
@pytest.mark.parametrize("name", ["Exception", "xception", "preprocess_input", "Model", ""])
def test_an_unknown_network_is_refused_with_the_list(use: Callable[[str], Any], name: str) -> None:
    with pytest.raises(InputError) as caught:
        use(name)
    message = str(caught.value)
    assert message.startswith(f"params.yaml: encoder.name {name!r} is no network")
    assert ", Xception" in message
    assert "\n" not in message


def test_an_input_size_too_small_for_the_network_is_refused() -> None:
    with pytest.raises(InputError, match=r"encoder\.input_size 70 does not fit Xception .*71"):
        build_encoder("Xception", 70)


def test_vectors_are_pooled_or_one_a_place() -> None:
    assert build_encoder("MobileNet", 64).output_shape == (None, 1024)
    assert build_encoder("MobileNet", 64, "grid").output_shape == (None, 4, 1024)
    assert build_encoder("MobileNet", 64, "quarters").output_shape == (None, 4, 1024)


def test_the_mean_over_places_is_the_pooled_vector(tiny_encoder: Path, tmp_path: Path) -> None:
    # The weights do not depend on the input size, so the grid can have more than one place.
    for name in ("encoder.json", "encoder.weights.h5"):
        (tmp_path / name).write_bytes((tiny_encoder / name).read_bytes())
    change_json(tmp_path / "encoder.json", {"input_size": 64})
    pooled, grid = load_encoder(tmp_path), load_encoder(tmp_path, "grid")
    photos = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    places = np.asarray(grid.predict_on_batch(photos))
    assert places.shape == (2, 4, 1024)
    assert places.std(axis=1).max() > 0.1
    assert np.allclose(places.mean(axis=1), pooled.predict_on_batch(photos), atol=1e-5, rtol=1e-5)


def test_places_stand_in_reading_order() -> None:
    network = build_encoder("MobileNet", 64, "grid")
    mapped = keras.Model(network.input, network.layers[-2].output)
    photos = np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32)
    places, map_ = network.predict_on_batch(photos), mapped.predict_on_batch(photos)
    assert np.array_equal(places[0], map_[0].reshape(4, 1024))
    assert np.array_equal(places[0, 1], map_[0, 0, 1])
    assert not np.array_equal(places[0, 1], places[0, 2])


@pytest.mark.parametrize("places", [1, 2, 3])
def test_quarters_share_the_middle_of_an_odd_number_of_places(places: int) -> None:
    network = build_encoder("MobileNet", 32 * places, "quarters")
    grid = build_encoder("MobileNet", 32 * places, "grid")
    grid.set_weights(network.get_weights())
    shape = (2, 32 * places, 32 * places, 3)
    photos = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    maps = np.asarray(grid.predict_on_batch(photos)).reshape(2, places, places, 1024)
    half, rest = (places + 1) // 2, places // 2
    parts = [
        maps[:, :half, :half],
        maps[:, :half, rest:],
        maps[:, rest:, :half],
        maps[:, rest:, rest:],
    ]
    expected = np.stack([part.mean(axis=(1, 2)) for part in parts], axis=1)
    np.testing.assert_allclose(network.predict_on_batch(photos), expected, rtol=1e-4, atol=1e-6)


# Scales.


def means(network: Any, names: list[str], photos: Any) -> Any:
    """Return the means of the places of layers' outputs, side by side."""
    outputs = [network.get_layer(name).output for name in names]
    maps = keras.Model(network.input, outputs).predict_on_batch(photos)
    return np.concatenate([np.mean(each, axis=(1, 2)) for each in maps], axis=-1)


@pytest.mark.parametrize(
    ("name", "size", "layers"),
    [
        # What is before a convolution of every second place; what is padded for it is not.
        ("MobileNet", 64, ["conv_pw_13_relu", "conv_pw_11_relu", "conv_pw_5_relu"]),
        # A sum of residuals, as the block behind it rectifies it.
        ("Xception", 71, ["block14_sepconv2_act", "block13_sepconv1_act"]),
        # Branches that are joined.
        ("InceptionV3", 75, ["mixed10", "mixed7"]),
    ],
)
def test_scales_are_the_last_maps_of_each_size(name: str, size: int, layers: list[str]) -> None:
    keras.utils.set_random_seed(0)
    network = build_encoder(name, size, "average", len(layers))
    photos = np.random.default_rng(0).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)
    found = np.asarray(network.predict_on_batch(photos))
    expected = means(network, layers, photos)
    assert expected.std(axis=1).min() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_quarters_have_every_scale() -> None:
    quarters = build_encoder("MobileNet", 64, "quarters", 2)
    average = build_encoder("MobileNet", 64, "average", 2)
    last = build_encoder("MobileNet", 64, "quarters")
    for other in (average, last):
        other.set_weights(quarters.get_weights())
    photos = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    parts = np.asarray(quarters.predict_on_batch(photos))
    assert parts.shape == (2, 4, 1024 + 512)
    np.testing.assert_allclose(parts.mean(axis=1), average.predict_on_batch(photos), rtol=1e-4)
    told = last.predict_on_batch(photos)
    np.testing.assert_allclose(parts[..., :1024], told, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "size", "sides", "window"),
    [
        ("MobileNet", 64, (2, 4), 2),
        ("Xception", 71, (3, 5), 2),
        # Its convolutions are not padded: 17 places become 8, or here 3 become 1.
        ("InceptionV3", 75, (1, 3), 3),
        ("InceptionV3", 139, (3, 7), 3),
        ("InceptionV3", 224, (5, 12), 4),
    ],
)
def test_larger_maps_come_to_stand_on_the_places_of_the_smallest(
    name: str, size: int, sides: tuple[int, int], window: int
) -> None:
    few, more = sides
    grid = build_encoder(name, size, "grid", 2)
    larger = keras.Model(grid.input, grid.get_layer(f"scale_{more}").output)
    photos = np.random.default_rng(0).uniform(-1, 1, (1, size, size, 3)).astype(np.float32)
    maps = np.asarray(larger.predict_on_batch(photos))[0]
    assert maps.shape[:2] == (more, more)
    expected = [
        maps[2 * y : 2 * y + window, 2 * x : 2 * x + window].mean(axis=(0, 1))
        for y in range(few)
        for x in range(few)
    ]
    places = np.asarray(grid.predict_on_batch(photos))[0]
    assert len(places) == few * few
    np.testing.assert_allclose(places[:, -maps.shape[2] :], expected, rtol=1e-4, atol=1e-7)


def test_three_scales_of_inceptionv3_which_pads_nothing_fit_a_grid() -> None:
    # 11, 24 and 50 places in a row.
    assert build_encoder("InceptionV3", 420, "grid", 3).output_shape == (None, 121, 3104)


def test_more_scales_than_a_network_has_are_refused() -> None:
    with pytest.raises(InputError, match=r"extract\.scales is 9, but mobilenet.* has only 5: set"):
        build_encoder("MobileNet", 32, "average", 9)


def test_a_network_is_described_as_this_keras_has_it() -> None:
    described = make_encoder_config("MobileNet", 32, "random", "a" * 64)
    assert (described.encoder, described.input_size) == ("MobileNet", 32)
    assert (described.weights_source, described.weights_sha256) == ("random", "a" * 64)
    assert described.preprocessing == "keras.applications.mobilenet.preprocess_input"
    assert described.preprocessing_sha256 == preprocessing_sha256("MobileNet")
