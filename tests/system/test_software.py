import numpy as np
import pytest

from pipeline.system.software import backend_name, software


def test_the_record_names_backend_device_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    record = software(accelerated=False)
    assert (record["backend"], record["device"]) == ("tensorflow", "cpu")
    assert record["numpy"] == np.__version__
    assert {"python", "keras", "pillow", "openvino", "tensorflow"} <= set(record)
    assert software(accelerated=False) == record
    assert software(accelerated=True) == record | {"device": "accelerator"}


def test_the_version_of_another_backend_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "not_installed")
    record = software(accelerated=False)
    assert (record["backend"], record["not_installed"]) == ("not_installed", "none")
    assert "tensorflow" not in record


def test_an_empty_variable_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "")
    assert backend_name() == "tensorflow"
