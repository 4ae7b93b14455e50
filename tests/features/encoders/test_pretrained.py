import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pipeline.backend import keras
from pipeline.errors import InputError
from pipeline.features.encoders import pretrained
from pipeline.features.encoders.networks import build_encoder
from pipeline.features.encoders.pretrained import (
    existing_official_source,
    fetch_encoder,
    load_encoder,
)
from pipeline.files import sha256_file
from pipeline.storage import keras_weights
from pipeline.storage.hdf5 import iter_datasets
from pipeline.storage.keras_weights import digest
from tests.conftest import change_json, small_network

FIX = "fix it"


@pytest.fixture(scope="module")
def network(tiny_encoder: Path) -> Any:
    return load_encoder(tiny_encoder)


def saved(path: Path, model: Any = None) -> Path:
    keras_weights.save(small_network() if model is None else model, path)
    return path


def refusal(path: Path, model: Any = None) -> str:
    with pytest.raises(InputError) as caught:
        keras_weights.load(small_network() if model is None else model, path, FIX)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.endswith(f": {FIX}")
    assert "\n" not in message
    return message


# Random and local weights.


def test_random_weights_are_the_same_every_time() -> None:
    network, source = fetch_encoder("MobileNet", "random", 32)
    assert source == "random, seed 0"
    assert digest(fetch_encoder("MobileNet", "random", 32)[0]) == digest(network)
    assert digest(fetch_encoder("MobileNet", "random", 64)[0]) == digest(network)


def test_the_digest_covers_every_number(network: Any) -> None:
    other = build_encoder("MobileNet", 32)
    arrays = [array.copy() for array in network.get_weights()]
    other.set_weights(arrays)
    assert digest(other) == digest(network)
    arrays[-1][0] += 1
    other.set_weights(arrays)
    assert digest(other) != digest(network)


def test_equal_weights_give_equal_bytes(tmp_path: Path, network: Any) -> None:
    first = saved(tmp_path / "1.weights.h5", network)
    second = saved(tmp_path / "2.weights.h5", network)
    assert first.read_bytes() == second.read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_is_an_error_and_leaves_the_old_file(tmp_path: Path) -> None:
    model = small_network()
    original = saved(tmp_path / "a.weights.h5", model).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(original) - 1, hard))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            keras_weights.save(model, tmp_path / "a.weights.h5")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename.endswith("a.weights.h5")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [original]


def test_a_local_file_is_loaded(tiny_encoder: Path, network: Any) -> None:
    path = tiny_encoder / "encoder.weights.h5"
    loaded, source = fetch_encoder("MobileNet", str(path), 32)
    assert digest(loaded) == digest(network)
    assert source == f"file encoder.weights.h5, sha256 {sha256_file(path)}"


def test_a_local_file_of_another_network_is_refused(tiny_encoder: Path) -> None:
    path = tiny_encoder / "encoder.weights.h5"
    with pytest.raises(InputError) as caught:
        fetch_encoder("MobileNetV2", str(path), 32)
    assert str(caught.value).startswith(f"{path} does not fit mobilenetv2 (")
    assert str(caught.value).endswith("is imagenet, random or a file that fits encoder.name")


def test_an_absent_local_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.weights\.h5 is not there: encoder\.weights in"):
        fetch_encoder("MobileNet", str(tmp_path / "nowhere.weights.h5"), 32)


# Untrusted files.


def test_saved_weights_are_loaded(tmp_path: Path) -> None:
    model, other = small_network(), small_network()
    keras_weights.load(other, saved(tmp_path / "a.weights.h5", model), FIX)
    assert digest(other) == digest(model)


def test_other_shapes_and_layers_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.weights.h5")
    assert "does not fit small" in refusal(path, small_network(4))
    inputs = keras.Input((4,), name="in")
    hidden = keras.layers.Dense(3, name="dense")(inputs)
    deeper = keras.Model(inputs, keras.layers.Dense(3, name="more")(hidden), name="deeper")
    assert "does not fit deeper" in refusal(path, deeper)


def test_a_file_name_with_another_suffix_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.weights.h5").rename(tmp_path / "a.bin")
    assert "File format not supported" in refusal(path)


def test_absent_truncated_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.weights.h5"
    assert "is not there" in refusal(path)
    data = saved(path).read_bytes()
    for content in (data[: len(data) // 2], b"", b"some text", b"PK\x03\x04", b"\x80\x04."):
        path.write_bytes(content)
        assert "is not a readable HDF5 file" in refusal(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX file types")
def test_folders_fifos_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.weights.h5")
    (tmp_path / "folder.weights.h5").mkdir()
    (tmp_path / "device.weights.h5").symlink_to("/dev/zero")
    for path in tmp_path.iterdir():
        assert "is not a file" in refusal(path)


VARIABLE = "layers/dense/vars/0"


def external_link(file: Any) -> None:
    file[VARIABLE] = h5py.ExternalLink("other.h5", "/x")


def soft_link(file: Any) -> None:
    file[VARIABLE] = h5py.SoftLink("/layers/dense/vars/1")


def external_dataset(file: Any) -> None:
    source = [("/etc/hostname", 0, h5py.h5f.UNLIMITED)]
    file.create_dataset(VARIABLE, (4, 3), "f4", external=source)


def virtual_dataset(file: Any) -> None:
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (4, 3))
    file.create_virtual_dataset(VARIABLE, layout)


def strings(file: Any) -> None:
    file[VARIABLE] = np.array([[b"1"] * 3] * 4)


def variable_strings(file: Any) -> None:
    file[VARIABLE] = [["1"] * 3] * 4


def records(file: Any) -> None:
    file[VARIABLE] = np.zeros((4, 3), [("a", "f4")])


def dates(file: Any) -> None:
    space = h5py.h5s.create_simple((4, 3))
    h5py.h5d.create(file["layers/dense/vars"].id, b"0", h5py.h5t.UNIX_D32LE, space)


def odd_floats(file: Any) -> None:
    float_type = h5py.h5t.IEEE_F32LE.copy()
    float_type.set_fields(31, 23, 8, 0, 23)
    float_type.set_ebias(1 << 20)
    space = h5py.h5s.create_simple((4, 3))
    h5py.h5d.create(file["layers/dense/vars"].id, b"0", float_type, space)


def not_numbers(file: Any) -> None:
    file[VARIABLE] = np.full((4, 3), np.nan, np.float32)


def infinite(file: Any) -> None:
    file[VARIABLE] = np.full((4, 3), -np.inf, np.float64)


def huge(file: Any) -> None:
    file.create_dataset(VARIABLE, (1 << 40, 3), "f4")


def compressed(file: Any) -> None:
    file.create_dataset(VARIABLE, (1 << 40, 3), "f4", compression="gzip")


def empty(file: Any) -> None:
    file[VARIABLE] = h5py.Empty("f4")


def a_type(file: Any) -> None:
    file[VARIABLE] = np.dtype("f4")


def a_group(file: Any) -> None:
    file.create_group(VARIABLE)


def nothing(file: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (external_link, f"/{VARIABLE} is a link"),
        (soft_link, f"/{VARIABLE} is a link"),
        (external_dataset, f"/{VARIABLE} takes its data from another file"),
        (virtual_dataset, f"/{VARIABLE} takes its data from another file"),
        (strings, f"/{VARIABLE} holds |S1, not numbers"),
        (variable_strings, f"/{VARIABLE} holds object, not numbers"),
        (records, f"/{VARIABLE} holds "),
        (dates, f"/{VARIABLE} does not hold numbers"),
        (odd_floats, f"/{VARIABLE} does not hold numbers"),
        (not_numbers, "dense/kernel has NaN or infinite numbers"),
        (infinite, "dense/kernel has NaN or infinite numbers"),
        (huge, f"/{VARIABLE} has the shape (1099511627776, 3), larger than"),
        (compressed, f"/{VARIABLE} has the shape (1099511627776, 3), larger than"),
        (empty, f"/{VARIABLE} is not an array"),
        (a_type, f"/{VARIABLE} is neither a group nor a dataset"),
        (a_group, "does not fit small"),
        (nothing, "does not fit small"),
    ],
)
def test_a_file_with_anything_but_its_own_numbers_is_refused(
    tmp_path: Path, fill: Callable[[Any], None], message: str
) -> None:
    path = saved(tmp_path / "a.weights.h5")
    with h5py.File(path, "r+") as file:
        del file[VARIABLE]
        fill(file)
    assert message in refusal(path)


# encoder.json with encoder.weights.h5.


@pytest.fixture
def artifacts(tiny_encoder: Path, tmp_path: Path) -> Path:
    for name in ("encoder.json", "encoder.weights.h5"):
        (tmp_path / name).write_bytes((tiny_encoder / name).read_bytes())
    return tmp_path


def change_config(artifacts: Path, **changes: object) -> None:
    change_json(artifacts / "encoder.json", changes)


def test_the_encoder_is_rebuilt_from_its_files(artifacts: Path, network: Any) -> None:
    recorded = json.loads((artifacts / "encoder.json").read_text())["weights_sha256"]
    assert digest(load_encoder(artifacts)) == digest(network) == recorded


def test_weights_with_another_digest_than_recorded_are_refused(artifacts: Path) -> None:
    path = artifacts / "encoder.weights.h5"
    with h5py.File(path, "r+") as file:
        dataset = next(iter_datasets(file))
        dataset[...] = dataset[...] + 1
    with pytest.raises(InputError, match=rf"{path} has other weights than encoder\.json .*dvc"):
        load_encoder(artifacts)


def test_another_preprocessing_in_the_installed_keras_is_refused(artifacts: Path) -> None:
    change_config(artifacts, preprocessing_sha256="0" * 64)
    with pytest.raises(InputError) as caught:
        load_encoder(artifacts)
    message = str(caught.value)
    assert message.startswith(f"{artifacts / 'encoder.json'}: keras.applications.mobilenet.prep")
    assert "of the installed Keras scales pixels differently: install requirements" in message
    assert message.endswith("or run `dvc repro --force encoder`")
    assert "\n" not in message


def test_a_missing_file_of_the_encoder_is_named(artifacts: Path) -> None:
    (artifacts / "encoder.weights.h5").unlink()
    with pytest.raises(InputError, match=r"encoder\.weights\.h5 is not there: run `dvc repro enc"):
        load_encoder(artifacts)
    (artifacts / "encoder.json").unlink()
    with pytest.raises(InputError, match=r"encoder\.json is not there: run `dvc repro encoder`"):
        load_encoder(artifacts)


def test_existing_official_weights_are_not_fetched_again(
    artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = "keras.applications 3.15"
    change_config(artifacts, weights_source=source)
    assert existing_official_source(artifacts, "MobileNet", "imagenet", 32) == source
    assert existing_official_source(artifacts, "MobileNet", "imagenet", 64) is None
    assert existing_official_source(artifacts, "Xception", "imagenet", 32) is None
    assert existing_official_source(artifacts, "MobileNet", "random", 32) is None
    assert existing_official_source(artifacts, "MobileNet", "my.weights.h5", 32) is None
    assert existing_official_source(artifacts / "nowhere", "MobileNet", "imagenet", 32) is None
    assert capsys.readouterr().out == ""


def test_weights_from_another_source_or_damaged_are_fetched_again(
    artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        existing_official_source(artifacts, "MobileNet", "imagenet", 32) is None
    )  # they are random
    change_config(artifacts, weights_source="wheel x", weights_sha256="0" * 64)
    assert existing_official_source(artifacts, "MobileNet", "imagenet", 32) is None
    assert capsys.readouterr().out.startswith("fetching the weights again: ")


def test_weights_with_another_preprocessing_are_fetched_again(
    artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_config(artifacts, weights_source="wheel x", preprocessing_sha256="0" * 64)
    assert existing_official_source(artifacts, "MobileNet", "imagenet", 32) is None
    assert "scales pixels differently" in capsys.readouterr().out


def test_keras_has_no_weights_for_an_unknown_network(network: Any) -> None:
    assert pretrained._load_from_keras(network, "Unknown", 32) == "it has no network of that name"
