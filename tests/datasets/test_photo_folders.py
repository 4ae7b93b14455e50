import os
import sys
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.datasets.photo_folders import find, is_safe, list_photos, photo_folder


def test_the_first_folder_that_exists_is_the_photo_folder(tmp_path: Path) -> None:
    assert photo_folder(tmp_path) is None
    (tmp_path / "Flicker8k_Dataset").mkdir()
    (tmp_path / "images").touch()
    assert photo_folder(tmp_path) == tmp_path / "Flicker8k_Dataset"


def test_whatever_looks_like_a_photo_is_listed_by_id(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.jpeg", "c.png", "d.WebP", "x.jpg.1", "notes.txt", ".hidden.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "e.jpg").touch()
    (tmp_path / "lost.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "deep" / "loop").symlink_to(tmp_path)
    found = list_photos(tmp_path)
    assert list(found) == [
        "a.jpeg",
        "b.JPG",
        "c.png",
        "d.WebP",
        "deep/er/e.jpg",
        "folder.jpg",
        "lost.jpg",
    ]
    assert found["deep/er/e.jpg"] == tmp_path / "deep" / "er" / "e.jpg"
    assert "deep/er/e.jpg" not in list_photos(tmp_path, leave_out=["deep"])


def test_a_link_to_a_folder_of_photos_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.jpg").touch()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "more").symlink_to(tmp_path / "elsewhere")
    assert list(list_photos(tmp_path / "images")) == ["more/a.jpg"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_file_name_that_is_no_utf8_has_a_writable_id(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).touch()
    assert list(list_photos(tmp_path)) == ["caf\\xe9.jpg"]


@pytest.mark.parametrize(
    "name",
    ["", "/a.jpg", "../a.jpg", "a/../b.jpg", "a\\b.jpg", "C:a.jpg", "a\0.jpg", "a\ud800.jpg"],
)
def test_unsafe_names(name: str) -> None:
    assert not is_safe(name)


@given(st.text())
def test_a_safe_name_stays_inside_the_folder(name: str) -> None:
    if is_safe(name):
        inside = os.path.normpath(os.path.join("/photos", name))  # noqa: PTH118
        assert inside.startswith("/photos")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["a.jpg"], ("a.jpg", False)),
        (["./a.jpg"], ("a.jpg", False)),
        (["a.jpg.1"], ("a.jpg", True)),
        (["b.jpg.2"], ("b.jpg.2", False)),
        (["c.jpg.1"], (None, True)),
        (["c.jpg"], (None, False)),
        (["report.1"], (None, False)),
        (["train2014/a.jpg", "a.jpg"], ("a.jpg", False)),
    ],
)
def test_names_find_photos(names: list[str], found: tuple[str | None, bool]) -> None:
    assert find(names, {"a.jpg", "b.jpg", "b.jpg.2"}) == found


@pytest.mark.parametrize("of_file", ["NFC", "NFD"])
@pytest.mark.parametrize("of_name", ["NFC", "NFD"])
def test_accents_may_be_of_either_form(
    of_file: Literal["NFC", "NFD"], of_name: Literal["NFC", "NFD"]
) -> None:
    there = normalize(of_file, "café.jpg")
    assert find([normalize(of_name, "café.jpg")], {there}) == (there, False)
    assert find([normalize(of_name, "café.jpg.1")], {there}) == (there, True)
