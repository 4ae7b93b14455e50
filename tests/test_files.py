import errno
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import files
from pipeline.errors import InputError
from pipeline.files import (
    atomic_path,
    fingerprint,
    read_json,
    remove_temporary_files,
    sha256_file,
    sole_writer,
    write_bytes,
    write_json,
    write_text,
)

VALUES = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none())


def test_a_write_replaces_the_file_and_creates_its_folder(tmp_path: Path) -> None:
    target = tmp_path / "new" / "er" / "a.txt"
    write_bytes(target, b"old")
    write_text(target, "neu\r\n")
    assert target.read_bytes() == b"neu\r\n"
    assert list(target.parent.iterdir()) == [target]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_temporary_files_of_killed_writers_are_removed(tmp_path: Path) -> None:
    names = [".tmp-1-a.txt", ".tmp-22-a.txt", ".tmp-1-b.txt", "a.txt", ".tmp-1-a.txt.lock"]
    for name in names:
        (tmp_path / name).write_text(name)
    remove_temporary_files(tmp_path, "a.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[2:])
    remove_temporary_files(tmp_path, "*")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    remove_temporary_files(tmp_path / "nowhere", "*")


def test_a_folder_has_one_writer_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with sole_writer(folder, "training"):
        with (
            pytest.raises(InputError, match=rf"another training is writing to {folder}: wait"),
            sole_writer(folder, "training"),
        ):
            pass
        with sole_writer(folder, "extraction", "other"):
            pass
    with pytest.raises(ZeroDivisionError), sole_writer(folder, "training"):
        raise ZeroDivisionError
    with sole_writer(folder, "training"):
        pass


def test_the_error_for_a_folder_that_cannot_be_written_to_has_the_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for options, fix in [
        ({}, "make it writable, or set runtime.cache in params.yaml to another folder"),
        ({"alternative": ""}, "make it writable"),
    ]:
        with (
            pytest.raises(InputError, match="cannot be written to") as caught,
            sole_writer(tmp_path / "file", "training", **options),
        ):
            pass
        assert str(caught.value).startswith(f"{tmp_path / 'file'} cannot be written to (")
        assert str(caught.value).endswith(f"): {fix}")


def test_readers_see_the_old_file_until_the_new_one_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert temporary.parent == target.parent  # a rename between disks is a copy
        assert target.read_text() == "old"
    assert target.read_text() == "new"


def test_a_writer_that_wrote_nothing_is_an_error(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_path(target):
        pass
    assert target.read_text() == "old"


def test_the_file_is_flushed_before_the_rename_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.txt"
    flushed = []

    def fsync(descriptor: int) -> None:
        kind = "folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file"  # noqa: PTH112
        flushed.append((kind, target.exists()))

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    monkeypatch.setattr(os, "fsync", fsync)
    write_bytes(target, b"x")
    assert flushed == [("file", False), ("folder", True)]


def test_the_temporary_file_has_the_suffixes_of_the_target(tmp_path: Path) -> None:
    target = tmp_path / "a.weights.npy"
    with atomic_path(target) as temporary:
        assert temporary.name.endswith(".weights.npy")
        np.save(temporary, np.arange(3))  # adds .npy to a name that lacks it
    assert np.load(target).tolist() == [0, 1, 2]


def test_json_has_sorted_keys_and_unescaped_letters(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": "ä", "a": [1]})
    assert (
        tmp_path / "a.json"
    ).read_bytes() == '{\n  "a": [\n    1\n  ],\n  "b": "ä"\n}\n'.encode()


@settings(max_examples=30, deadline=None)
@given(value=VALUES)
def test_equal_values_have_equal_bytes_and_fingerprints(
    value: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> None:
    reordered = dict(reversed(value.items()))
    first = tmp_path_factory.getbasetemp() / "first.json"
    second = first.with_name("second.json")
    write_json(first, value)
    write_json(second, reordered)
    assert first.read_bytes() == second.read_bytes()
    assert read_json(first, "fix") == value
    assert fingerprint(value) == fingerprint(reordered)


@settings(max_examples=50, deadline=None)
@given(one=VALUES, other=VALUES)
def test_only_equal_values_have_equal_fingerprints(
    one: dict[str, object], other: dict[str, object]
) -> None:
    assert (fingerprint(one) == fingerprint(other)) == (one == other)


def test_the_fingerprint_depends_on_the_order_of_lists() -> None:
    assert fingerprint([1, 2]) != fingerprint([2, 1])
    assert fingerprint({"a": 1}) == fingerprint(json.loads('{"a": 1}'))
    assert len(fingerprint(None)) == 64


def test_the_digest_of_a_file_is_the_sha256_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223b00361a3")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "is not there"),
        (b"", "cannot be read as JSON"),
        (b'{"a": 1', "cannot be read as JSON"),
        (b"\xff\xfe", "cannot be read as JSON"),
        (b"9" * 5000, "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b"[1]", "is not a JSON object"),
        (b"null", "is not a JSON object"),
    ],
)
def test_the_error_for_unusable_json_names_file_and_fix(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_json(path, "run `dvc repro x`")
    message = str(caught.value)
    assert message.startswith(f"{path} {problem}")
    assert message.endswith(": run `dvc repro x`")
    assert "\n" not in message


def test_a_folder_is_rejected_as_json(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as JSON"):
        read_json(tmp_path, "fix")


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks on folders")
def test_the_next_writer_removes_what_killed_ones_left(tmp_path: Path) -> None:
    (tmp_path / ".tmp-1-a.txt").write_text("half")
    (tmp_path / ".tmp-2").mkdir()
    (tmp_path / ".tmp-2" / "graph.xml").write_text("half")
    (tmp_path / ".other").write_text("mine")
    write_text(tmp_path / "b.txt", "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other", "b.txt"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks on folders")
def test_the_files_of_a_writer_at_work_are_not_removed(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("a")
        files._cleaned.clear()  # as in another process
        write_text(tmp_path / "b.txt", "b")
    assert (tmp_path / "a.txt").read_text() == "a"


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks on folders")
def test_without_locks_on_folders_files_are_written_and_none_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    (tmp_path / ".tmp-1-a.txt").write_text("half")
    write_text(tmp_path / "a.txt", "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".tmp-1-a.txt", "a.txt"]
