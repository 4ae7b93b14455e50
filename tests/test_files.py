import errno
import json
import os
import stat
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

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
    read_texts,
    record_from_json,
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


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_is_replaced_and_what_it_leads_to_is_not_written_to(
    tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    cached, target = tmp_path / "cached", tmp_path / "target"
    cached.write_text("in DVC's cache")
    cached.chmod(0o444)
    link(cached, target)
    write_bytes(target, b"new")
    assert target.read_bytes() == b"new"
    assert not target.is_symlink()
    assert cached.read_text() == "in DVC's cache"


def test_a_second_writer_may_wait(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = sole_writer(tmp_path, "training")
    first.__enter__()

    def second() -> str:
        with sole_writer(tmp_path, "training", wait=True):
            return "written"

    with ThreadPoolExecutor() as pool:
        result = pool.submit(second)
        while not (line := capsys.readouterr().err):
            assert not result.done()
        assert line == f"another training is writing to {tmp_path}: waiting until it ends\n"
        first.__exit__(None, None, None)
        assert result.result() == "written"


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
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "make it writable, or set runtime.cache in params.yaml to another folder"),
        ({"alternative": ""}, "make it writable"),
    ]
    for options, fix in cases:
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


def refuse_folders(number: int) -> Any:
    """Return `os.fsync` of a file system that cannot flush a folder."""
    fsync = os.fsync

    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    return refuse


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOSYS])
def test_a_file_system_may_refuse_to_flush_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "fsync", refuse_folders(number))
    write_bytes(tmp_path / "a.txt", b"x")
    assert (tmp_path / "a.txt").read_bytes() == b"x"


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_disk_that_fails_to_flush_a_folder_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "fsync", refuse_folders(number))
    with pytest.raises(OSError, match=os.strerror(number)):
        write_bytes(tmp_path / "a.txt", b"x")


def without_locks(number: int) -> Any:
    """Patch the system's locks, as on a file system that has none."""
    error = OSError(number, os.strerror(number))
    return mock.patch("fcntl.flock", side_effect=error)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_without_locks_of_the_system_a_folder_still_has_one_writer(
    tmp_path: Path, number: int
) -> None:
    with without_locks(number):
        with sole_writer(tmp_path, "training"):
            write_bytes(tmp_path / "a.txt", b"x")
            with (
                pytest.raises(InputError, match=r"another training is .* remove .*lock\.soft"),
                sole_writer(tmp_path, "training"),
            ):
                pass
        with sole_writer(tmp_path, "training"):
            pass
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", "lock"}


def test_a_lock_without_those_of_the_system_ends_with_its_process(tmp_path: Path) -> None:
    above_all_process_ids = 2**22 + 1
    with without_locks(errno.ENOLCK):
        with sole_writer(tmp_path, "training"):
            marker = next(tmp_path.glob("*.soft"))
            lines = marker.read_text().splitlines()
        marker.write_text("\n".join([str(above_all_process_ids), *lines[1:]]) + "\n")
        with sole_writer(tmp_path, "training"):
            pass


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
    with pytest.raises(InputError, match="is a folder, not a file: fix"):
        read_json(tmp_path, "fix")


@pytest.mark.timeout(20)
def test_a_pipe_or_a_device_is_refused_without_reading_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "pipe"), (Path("/dev/zero"), "device")):
        with pytest.raises(InputError, match=f"{path} is a {kind}, not a file: fix"):
            read_json(path, "fix")


@pytest.mark.parametrize("text", ['{"a": "\\ud800"}', '{"\\udc00": [1]}'])
def test_half_a_character_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"cannot be read as JSON .*surrogates not allowed"):
        read_json(tmp_path / "a.json", "fix")
    (tmp_path / "a.json").write_text('{"a": "\\ud83d\\ude00"}')
    assert read_json(tmp_path / "a.json", "fix") == {"a": "😀"}


def test_texts_are_texts(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"failed": {"1.jpg": "empty file"}})
    assert read_texts(path, "failed", "fix") == {"1.jpg": "empty file"}
    values: list[Any] = [None, [], {"1.jpg": None}, {"1.jpg": 3}, "text"]
    for value in values:
        write_json(path, {"failed": value})
        with pytest.raises(InputError, match="failed does not hold texts: fix"):
            read_texts(path, "failed", "fix")


@dataclass
class Record:
    name: str
    size: int
    share: float
    on: bool
    shape: tuple[int, ...]
    facts: dict[str, Any]


RECORD: dict[str, Any] = {
    "name": "a",
    "size": 1,
    "share": 0.5,
    "on": True,
    "shape": [1, 2],
    "facts": {"b": None},
}


def test_a_record_has_the_values_of_the_object() -> None:
    assert record_from_json(Record, RECORD) == Record(**RECORD | {"shape": (1, 2)})
    assert record_from_json(Record, RECORD | {"share": 1}).share == 1


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("name", [None, 1, ["a"], {}]),
        ("size", [None, "1", 1.0, True]),
        ("share", [None, "1", True, float("nan"), float("inf"), 10**400]),
        ("on", [None, 1, "true"]),
        ("shape", [None, 1, "12", [1.0], [True], [[1]], {"1": 1}]),
        ("facts", [None, [], ""]),
    ],
)
def test_a_record_of_other_fields_or_types_is_refused(name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=f"{name} is "):
            record_from_json(Record, RECORD | {name: value})
    for other in (RECORD | {"more": 1}, {k: v for k, v in RECORD.items() if k != name}):
        with pytest.raises(ValueError, match="missing or unknown"):
            record_from_json(Record, other)
    with pytest.raises(ValueError, match="is not an object"):
        record_from_json(Record, values)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.EIO])
def test_an_error_of_the_system_is_not_taken_for_a_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    path = tmp_path / "a.json"
    write_json(path, {})
    monkeypatch.setattr(Path, "read_text", fail)
    with pytest.raises(OSError, match=f"{os.strerror(number)}: '{path}'"):
        read_json(path, "fix")


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
