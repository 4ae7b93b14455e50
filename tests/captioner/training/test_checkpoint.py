import json
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.captioner.training.checkpoint import Checkpoint, remove_abandoned_checkpoints

ARRAYS: dict[str, Any] = {
    "state_0": np.arange(6, dtype=np.float32).reshape(2, 3),
    "state_1": np.array(7, dtype=np.int64),
    "best_0": np.array([np.nan, np.inf, -0.0]),
}
METADATA = {"history": [{"epoch": 1, "loss": 0.1}], "stop_reason": ""}
FINGERPRINT = "0123456789abcdef" * 4


def is_as_saved(loaded: tuple[dict[str, Any], dict[str, Any]] | None) -> bool:
    assert loaded is not None
    arrays, metadata = loaded
    return (
        metadata == METADATA
        and list(arrays) == list(ARRAYS)
        and all(arrays[name].dtype == ARRAYS[name].dtype for name in ARRAYS)
        and all(arrays[name].tobytes() == ARRAYS[name].tobytes() for name in ARRAYS)
        and all(arrays[name].shape == ARRAYS[name].shape for name in ARRAYS)
    )


def test_a_checkpoint_loads_what_was_saved(tmp_path: Path) -> None:
    Checkpoint(tmp_path, FINGERPRINT).save(ARRAYS, METADATA)
    assert is_as_saved(Checkpoint(tmp_path, FINGERPRINT).load())


def test_saving_again_replaces_the_checkpoint(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, FINGERPRINT)
    checkpoint.save({"other": np.zeros(9)}, {})
    checkpoint.save(ARRAYS, METADATA)
    assert is_as_saved(checkpoint.load())
    assert [path.name for path in checkpoint.folder.iterdir()] == ["state.npz"]


def test_there_is_no_checkpoint_before_the_first_save(tmp_path: Path) -> None:
    assert Checkpoint(tmp_path, FINGERPRINT).load() is None
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Checkpoint(tmp_path, FINGERPRINT)
    checkpoint.save(ARRAYS, METADATA)

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save({}, {})
    assert is_as_saved(checkpoint.load())
    assert [path.name for path in checkpoint.folder.iterdir()] == ["state.npz"]


@pytest.mark.parametrize("data", [b"", b"not a zip file", b"PK\x03\x04"])
def test_a_damaged_checkpoint_is_reported_and_ignored(
    tmp_path: Path, data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = Checkpoint(tmp_path, FINGERPRINT)
    checkpoint.save(ARRAYS, METADATA)
    (checkpoint.folder / "state.npz").write_bytes(data)
    assert checkpoint.load() is None
    shown = capsys.readouterr().out
    assert "state.npz is damaged" in shown
    assert "training starts over" in shown
    # It is reported once: the next training does not read it again.
    assert [path.name for path in checkpoint.folder.iterdir()] == ["state.npz.damaged"]
    assert checkpoint.load() is None
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kind", ["folder", "fifo", "broken link"])
def test_what_is_no_file_is_set_aside(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = Checkpoint(tmp_path, FINGERPRINT)
    checkpoint.folder.mkdir(parents=True)
    state = checkpoint.folder / "state.npz"
    if kind == "folder":
        state.mkdir()
    elif kind == "fifo":
        os.mkfifo(state)
    else:
        state.symlink_to("nowhere")
    assert checkpoint.load() is None
    assert ("state.npz is damaged" in capsys.readouterr().out) == (kind != "broken link")
    checkpoint.save(ARRAYS, METADATA)
    assert is_as_saved(checkpoint.load())


def test_a_compressed_checkpoint_that_would_fill_the_memory_is_set_aside(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, FINGERPRINT)
    checkpoint.folder.mkdir(parents=True)
    text = np.array(json.dumps({"metadata": {}, "arrays": ["state_0"]}))
    state = checkpoint.folder / "state.npz"
    np.savez_compressed(state, metadata=text, state_0=np.zeros(10**6))
    assert state.stat().st_size < 10**5
    assert checkpoint.load() is None


@pytest.mark.parametrize("shape", ["(9999999999999,)", "(-1,)", "(2,3,4)", "('a',)"])
def test_an_array_that_declares_another_size_is_set_aside(tmp_path: Path, shape: str) -> None:
    checkpoint = Checkpoint(tmp_path, FINGERPRINT)
    checkpoint.save(ARRAYS, METADATA)
    state = checkpoint.folder / "state.npz"
    with zipfile.ZipFile(state) as file:
        members = {name: file.read(name) for name in file.namelist()}
    padded = b"'shape': (2, 3), }" + b" " * 20
    assert padded in members["state_0.npy"]
    forged = f"'shape': {shape}, }}".encode().ljust(len(padded))
    members["state_0.npy"] = members["state_0.npy"].replace(padded, forged)
    with zipfile.ZipFile(state, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    assert checkpoint.load() is None


@pytest.mark.parametrize("text", ["[]", "{}", "1", '{"metadata": {}}', "[" * 9999, "1" * 9999])
def test_metadata_of_another_form_is_set_aside(tmp_path: Path, text: str) -> None:
    checkpoint = Checkpoint(tmp_path, FINGERPRINT)
    checkpoint.folder.mkdir(parents=True)
    np.savez(checkpoint.folder / "state.npz", metadata=np.array(text), **ARRAYS)
    assert checkpoint.load() is None


def test_the_temporary_file_of_a_killed_save_is_removed(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, FINGERPRINT)
    checkpoint.save(ARRAYS, METADATA)
    (checkpoint.folder / ".tmp-01234567-state.npz").write_bytes(b"PK")
    assert is_as_saved(checkpoint.load())
    assert [path.name for path in checkpoint.folder.iterdir()] == ["state.npz"]


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, FINGERPRINT)
    checkpoint.folder.mkdir(parents=True)
    objects = np.array([{}], dtype=object)
    metadata = np.array('{"metadata": {}, "arrays": ["state_0"]}')
    np.savez(checkpoint.folder / "state.npz", metadata=metadata, state_0=objects)
    assert checkpoint.load() is None


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_checkpoint_with_any_damaged_byte_is_ignored_or_loads_the_same(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    checkpoint = Checkpoint(tmp_path_factory.getbasetemp() / "damaged", FINGERPRINT)
    checkpoint.save(ARRAYS, METADATA)
    state = checkpoint.folder / "state.npz"
    good = state.read_bytes()
    position = data.draw(st.integers(0, len(good) - 1))
    value = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(good), position]))
    state.write_bytes((good[:position] + bytes([value]) + good[position + 1 :])[:cut])
    loaded = checkpoint.load()
    assert loaded is None or is_as_saved(loaded)


def test_another_training_has_another_folder(tmp_path: Path) -> None:
    one, other = Checkpoint(tmp_path, "a" * 64), Checkpoint(tmp_path, "b" * 64)
    one.save(ARRAYS, METADATA)
    assert one.folder != other.folder
    assert other.load() is None
    assert one.folder.parent == other.folder.parent == tmp_path / "training"


def test_removing_a_checkpoint_removes_its_log_and_no_other_checkpoint(tmp_path: Path) -> None:
    one, other = Checkpoint(tmp_path, "a" * 64), Checkpoint(tmp_path, "b" * 64)
    one.save(ARRAYS, METADATA)
    other.save(ARRAYS, METADATA)
    (one.folder / "log").mkdir()
    one.remove()
    one.remove()
    assert one.load() is None
    assert not one.folder.exists()
    assert is_as_saved(other.load())


def test_a_checkpoint_is_removed_after_a_month(tmp_path: Path) -> None:
    old, new = (Checkpoint(tmp_path, str(number) * 64) for number in (1, 2))
    for days, checkpoint in ((31, old), (29, new)):
        checkpoint.save(ARRAYS, METADATA)
        (checkpoint.folder / "log").mkdir()
        modified = time.time() - days * 24 * 3600
        os.utime(checkpoint.folder / "state.npz", (modified, modified))
    remove_abandoned_checkpoints(tmp_path)
    assert not old.folder.exists()
    assert is_as_saved(new.load())
    remove_abandoned_checkpoints(tmp_path / "no cache yet")
