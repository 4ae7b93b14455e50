import os
import sys
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.datasets.photo_folders import (
    FolderContents,
    find_photo_folder,
    is_safe_name,
    list_folder,
    list_photos,
    match_photo,
)


def test_the_first_existing_folder_is_the_photo_folder(tmp_path: Path) -> None:
    assert find_photo_folder(tmp_path) is None
    (tmp_path / "Flicker8k_Dataset").mkdir()
    (tmp_path / "images").touch()
    assert find_photo_folder(tmp_path) == tmp_path / "Flicker8k_Dataset"


def test_everything_named_like_a_photo_is_listed(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.jpeg", "c.png", "d.WebP", "x.jpg.1", "notes.txt", ".hidden.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "e.jpg").touch()
    (tmp_path / "lost.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "deep" / "loop").symlink_to(tmp_path)
    photos = list_photos(tmp_path)
    assert list(photos) == [
        "a.jpeg",
        "b.JPG",
        "c.png",
        "d.WebP",
        "deep/er/e.jpg",
        "folder.jpg",
        "lost.jpg",
    ]
    assert photos["deep/er/e.jpg"] == tmp_path / "deep" / "er" / "e.jpg"
    assert "deep/er/e.jpg" not in list_photos(tmp_path, exclude=["deep"])


def test_bytes_decide_for_files_without_a_photos_suffix(tmp_path: Path) -> None:
    heads = {
        "a.jfif": b"\xff\xd8\xff\xe0",
        "b.jpe": b"\xff\xd8\xff\xe1",
        "noext": b"\x89PNG\r\n\x1a\n",
        "q.jpg?w=640": b"RIFF\0\0\0\0WEBP",
        "web.jpg_large": b"\xff\xd8\xff\xdb",
        "c.HEIC": b"\0\0\0\x18ftypheic",
        "d.avif": b"\0\0\0\x18ftypavif",
        "e.gif": b"GIF89a",
        "notes.txt": b"hello",
        "empty": b"",
    }
    for name, head in heads.items():
        (tmp_path / name).write_bytes(head)
    (tmp_path / "lost").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    contents = list_folder(tmp_path)
    assert list(contents.photos) == ["a.jfif", "b.jpe", "noext", "q.jpg?w=640", "web.jpg_large"]
    assert {name: kind.name for name, kind in contents.other_files.items()} == {
        "c.HEIC": "a HEIC photo",
        "d.avif": "an AVIF image",
        "e.gif": "a GIF image",
        "empty": "an empty file",
        "lost": "an unreadable file",
        "notes.txt": "a text file",
        "pipe": "a special file",
    }


@pytest.mark.parametrize(
    "name",
    [
        ".DS_Store",
        "Thumbs.db",
        "desktop.ini",
        "._a.jpg",
        "@eaDir/a.jpg",
        ".directory",
        "__MACOSX/a",
    ],
)
def test_what_systems_drop_is_neither_a_photo_nor_another_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"\xff\xd8\xff\xe0")
    assert list_folder(tmp_path) == FolderContents()


def test_files_with_a_photos_suffix_are_listed_unopened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.jpg", "b.PNG", "c.webp", "d.jpeg"):
        (tmp_path / name).touch()
    monkeypatch.setattr(Path, "open", lambda path, *_: pytest.fail(f"{path} was opened"))
    assert len(list_photos(tmp_path)) == 4


def test_a_link_to_a_photo_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.jpg").touch()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "more").symlink_to(tmp_path / "elsewhere")
    assert list(list_photos(tmp_path / "images")) == ["more/a.jpg"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_file_name_that_is_not_utf8_has_an_escaped_image_id(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).touch()
    assert list(list_photos(tmp_path)) == ["caf\\xe9.jpg"]


@pytest.mark.parametrize(
    "name",
    ["", "/a.jpg", "../a.jpg", "a/../b.jpg", "a\\b.jpg", "C:a.jpg", "a\0.jpg", "a\ud800.jpg"],
)
def test_unsafe_names_are_detected(name: str) -> None:
    assert not is_safe_name(name)


@given(st.text())
def test_a_safe_name_stays_inside_the_folder(name: str) -> None:
    if is_safe_name(name):
        inside = os.path.normpath(os.path.join("/photos", name))  # noqa: PTH118
        assert inside.startswith("/photos")


@pytest.mark.parametrize(
    ("names", "expected"),
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
def test_names_are_matched_with_photos(names: list[str], expected: tuple[str | None, bool]) -> None:
    assert match_photo(names, {"a.jpg", "b.jpg", "b.jpg.2"}) == expected


@pytest.mark.parametrize("file_form", ["NFC", "NFD"])
@pytest.mark.parametrize("name_form", ["NFC", "NFD"])
def test_accents_match_in_either_unicode_form(
    file_form: Literal["NFC", "NFD"], name_form: Literal["NFC", "NFD"]
) -> None:
    image_id = normalize(file_form, "café.jpg")
    assert match_photo([normalize(name_form, "café.jpg")], {image_id}) == (image_id, False)
    assert match_photo([normalize(name_form, "café.jpg.1")], {image_id}) == (image_id, True)
