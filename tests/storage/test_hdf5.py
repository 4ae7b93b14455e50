import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.storage.hdf5 import (
    check_dataset,
    iter_datasets,
    open_self_contained,
    read_integer_attribute,
    read_text_attribute,
)

FIX = "run `dvc repro x`"


def make(path: Path, fill: Callable[[Any], object]) -> Path:
    with h5py.File(path, "w") as file:
        file["group/inner/numbers"] = np.arange(6)
        fill(file)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught, open_self_contained(path, FIX):
        pytest.fail("was opened")
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.endswith(f": {FIX}")
    assert "\n" not in message
    return message


def test_plain_groups_and_datasets_are_opened(tmp_path: Path) -> None:
    def fill(file: Any) -> None:
        file["b"] = np.zeros(2)
        file["a"] = np.zeros((2, 2))
        file.create_dataset("group/packed", data=np.arange(9), chunks=(3,), compression="gzip")

    with open_self_contained(make(tmp_path / "a.h5", fill), FIX) as file:
        assert [dataset.name for dataset in iter_datasets(file)] == [
            "/a",
            "/b",
            "/group/inner/numbers",
            "/group/packed",
        ]
        with pytest.raises((OSError, ValueError), match="no write intent"):
            file["c"] = 1


def test_the_file_is_closed_afterwards(tmp_path: Path) -> None:
    with open_self_contained(make(tmp_path / "a.h5", len), FIX) as file:
        pass
    assert not file


def test_other_files_than_hdf5_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    assert "is not there" in refusal(path)
    for content in (b"", b"text", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04"):
        path.write_bytes(content)
        assert "is not a readable HDF5 file" in refusal(path)
    path.unlink()
    path.mkdir()
    assert "is a folder, not a file" in refusal(path)


@pytest.mark.parametrize("length", [100, 1000, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, length: int) -> None:
    path = make(tmp_path / "a.h5", len)
    path.write_bytes(path.read_bytes()[:length])
    assert "is not a readable HDF5 file" in refusal(path)


def test_an_overwritten_file_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "a.h5", len)
    data = path.read_bytes()
    path.write_bytes(data[:100] + b"\xaa" * (len(data) - 100))
    refusal(path)


def external_link(file: Any) -> None:
    file["group/inner/foreign"] = h5py.ExternalLink("other.h5", "/numbers")


def soft_link(file: Any) -> None:
    file["group/inner/foreign"] = h5py.SoftLink("/group/inner/numbers")


def dangling_link(file: Any) -> None:
    file["group/inner/foreign"] = h5py.SoftLink("/nowhere")


def external_dataset(file: Any) -> None:
    file.create_dataset(
        "group/inner/foreign", (4,), "f4", external=[("other.bin", 0, h5py.h5f.UNLIMITED)]
    )


def virtual_dataset(file: Any) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "numbers", (4,))
    file.create_virtual_dataset("group/inner/foreign", layout)


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (external_link, "is a link"),
        (soft_link, "is a link"),
        (dangling_link, "is a link"),
        (external_dataset, "takes its data from another file"),
        (virtual_dataset, "takes its data from another file"),
    ],
)
def test_references_to_other_data_are_refused(
    tmp_path: Path, fill: Callable[[Any], object], message: str
) -> None:
    assert f": /group/inner/foreign {message}" in refusal(make(tmp_path / "a.h5", fill))


def circle(file: Any) -> None:
    file["group/inner/root"] = file["/"]


def tangle(file: Any) -> None:
    # Following all names would visit 2 ** 60 groups.
    group = file
    for _ in range(60):
        below = group.create_group("a")
        group["b"] = below
        group = below


def deep(file: Any) -> None:
    group = file
    for _ in range(1200):
        group = group.create_group("g")


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (circle, "/group/inner/root is a second name of a group"),
        (tangle, "is a second name of a group"),
        (deep, "is damaged"),
    ],
)
def test_groups_that_make_the_walk_endless_are_refused(
    tmp_path: Path, fill: Callable[[Any], object], message: str
) -> None:
    assert message in refusal(make(tmp_path / "a.h5", fill))


def test_an_error_in_the_context_is_not_changed(tmp_path: Path) -> None:
    def read() -> None:
        with open_self_contained(make(tmp_path / "a.h5", len), FIX):
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        read()


@pytest.mark.parametrize(
    "value",
    ["variable length", ["a", "b"], np.arange(2), np.float32(1), h5py.Empty("i4"), np.void(b"1")],
)
def test_only_attributes_of_the_right_type_are_read(tmp_path: Path, value: Any) -> None:
    """HDF5 hangs or crashes where a text of variable length is damaged."""
    with h5py.File(make(tmp_path / "a.h5", len), "r+") as file:
        file.attrs["value"] = value
        with pytest.raises(ValueError, match="value is not a fixed-length string"):
            read_text_attribute(file, "value")
        with pytest.raises(ValueError, match="value is not an integer"):
            read_integer_attribute(file, "value")
        with pytest.raises(KeyError):
            read_integer_attribute(file, "absent")
        file.attrs["text"], file.attrs["number"] = np.bytes_("text"), 7
        assert read_text_attribute(file, "text") == "text"
        assert read_integer_attribute(file, "number") == 7


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"data": ["variable", "length"]}, "does not hold numbers"),
        ({"data": np.array([b"fixed"])}, "does not hold numbers"),
        ({"data": h5py.Empty("f4")}, "is larger than the file|NoneType"),
        ({"shape": (1 << 40,), "dtype": "f4"}, "is larger than the file"),
        ({"shape": (1 << 40,), "dtype": "f4", "chunks": (9,)}, "is larger than the file"),
        ({"data": np.zeros(99, "f4"), "compression": "gzip"}, "is in chunks"),
        ({"shape": (2,), "maxshape": (None,), "dtype": "f4", "chunks": (1 << 28,)}, "is in chunks"),
    ],
)
def test_only_numbers_that_are_in_the_file_are_read(
    tmp_path: Path, options: dict[str, Any], problem: str
) -> None:
    with h5py.File(make(tmp_path / "a.h5", len), "r+") as file:
        with pytest.raises((ValueError, TypeError), match=problem):
            check_dataset(file.create_dataset("a", **options), "f")
        check_dataset(file.create_dataset("b", data=np.zeros(9, "f4")), "f")


def test_a_type_is_no_dataset(tmp_path: Path) -> None:
    def fill(file: Any) -> None:
        file["group/inner/type"] = np.dtype("f4")

    path = make(tmp_path / "a.h5", fill)
    assert "/group/inner/type is neither a group nor a dataset" in refusal(path)


@pytest.mark.timeout(20)
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.h5")
    assert "is a pipe, not a file" in refusal(tmp_path / "a.h5")


def test_an_error_of_the_system_is_not_taken_for_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path / "a.h5", len)

    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Unable to open the file (a long story)")

    monkeypatch.setattr(h5py, "File", fail)
    with (
        pytest.raises(OSError, match=f"Too many open files: '{path}'"),
        open_self_contained(path, FIX),
    ):
        pass
