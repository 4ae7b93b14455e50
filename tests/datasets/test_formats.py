import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.datasets.annotations import Annotations
from pipeline.datasets.formats import (
    CAPTION_FORMATS,
    find_photos,
    read_annotations,
)
from pipeline.errors import InputError

FILES = {
    "flickr8k": "Flickr8k.token.txt",
    "kaggle": "captions.txt",
    "karpathy": "dataset_x.json",
    "coco": "captions_x.json",
}
NAMES = st.sampled_from(["a.jpg", "b.jpg", "c.jpg", "z.jpg", "a.jpg.1", "../a.jpg", "a\0.jpg", ""])
CAPTIONS = st.text(max_size=8) | st.sampled_from(["A dog", "A dog, a cat", '"', 'A "x"', " "])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from(["a.jpg", "train", "\ud800x"]),
    lambda values: (
        st.lists(values, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["images", "annotations", "filename", "sentences", "raw", "split", "id"]
            ),
            values,
        )
    ),
    max_leaves=12,
)


@contextmanager
def dataset(format_name: str, data: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "images").mkdir()
        for name in ("a.jpg", "b.jpg", "c.jpg"):
            (root / "images" / name).touch()
        if format_name == "flickr8k":
            (root / "Flickr_8k.trainImages.txt").write_text("a.jpg\nb.jpg\n")
        (root / FILES[format_name]).write_bytes(data)
        yield root


def load(format_name: str, root: Path) -> Annotations:
    return read_annotations(format_name, root, split_seed=1, dev_share=0.0, test_share=0.0)


def check(format_name: str, data: bytes) -> None:
    """Read a generated file: it is rejected with one line, or all counts add up."""
    with dataset(format_name, data) as root:
        photos = find_photos(format_name, root)
        try:
            annotations = load(format_name, root)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
            return
    summary, rows = annotations.summary, annotations.rows
    assert summary.captions_kept == len(rows) > 0
    assert summary.captions_read == summary.captions_kept + sum(summary.dropped.values())
    assert (
        summary.photos_there
        == len(photos)
        == (summary.photos_kept + summary.photos_in_no_split + summary.photos_without_captions)
    )
    assert {row.image_id for row in rows} <= set(photos)
    keys = [(row.image_id, row.caption_index) for row in rows]
    assert keys == sorted(set(keys))
    assert all(row.raw == row.raw.strip() != "" and row.raw.encode() for row in rows)
    json.dumps(summary.as_dict(), ensure_ascii=False).encode()


@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("format_name", CAPTION_FORMATS)
@given(data=st.binary(max_size=80))
def test_any_bytes_are_rejected_or_counted(format_name: str, data: bytes) -> None:
    check(format_name, data)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(NAMES, st.sampled_from(["#0", "#1", ""]), CAPTIONS), max_size=8),
    noise=st.binary(max_size=10),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    codec=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_any_lines_are_rejected_or_counted(
    rows: list[tuple[str, str, str]], noise: bytes, end: str, codec: str
) -> None:
    tokens = end.join(f"{name}{number}\t{caption}" for name, number, caption in rows)
    check("flickr8k", tokens.encode(codec, "replace") + noise)
    table = end.join(["image,caption", *(f"{name},{caption}" for name, _, caption in rows)])
    check("kaggle", table.encode(codec, "replace") + noise)


@settings(max_examples=60, deadline=None)
@given(captions=st.lists(JSON | CAPTIONS, max_size=3), name=NAMES | JSON, noise=JSON)
def test_any_json_is_rejected_or_counted(captions: list[Any], name: Any, noise: Any) -> None:
    sentences = [{"raw": caption} for caption in captions]
    good = {"filename": "a.jpg", "split": "train", "sentences": [{"raw": "A dog"}]}
    images = [good, {"filename": name, "split": "train", "sentences": sentences}, noise]
    check("karpathy", json.dumps({"images": images}).encode())
    coco = {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": name}, noise],
        "annotations": [
            {"image_id": 1, "caption": "A dog"},
            *({"image_id": 2, "id": 3, "caption": caption} for caption in captions),
            noise,
        ],
    }
    check("coco", json.dumps(coco).encode())
    for format_name in ("karpathy", "coco"):
        check(format_name, json.dumps(noise).encode())


@pytest.mark.parametrize("format_name", CAPTION_FORMATS)
def test_the_format_of_the_existing_files_is_suggested(format_name: str) -> None:
    other = "coco" if format_name == "kaggle" else "kaggle"
    with (
        dataset(other, b"image,caption\n") as root,
        pytest.raises(
            InputError, match=f"{format_name} expects .*dataset.format: {other} would match"
        ),
    ):
        load(format_name, root)


def test_the_error_for_a_file_without_usable_rows_has_the_reasons() -> None:
    data = b"hello\nz.jpg#0\tA dog\n"
    with (
        dataset("flickr8k", data) as root,
        pytest.raises(
            InputError,
            match=r"no usable captions: all 2 were dropped \(malformed: 1, photo_not_there: 1\)",
        ),
    ):
        load("flickr8k", root)


def test_the_error_for_a_missing_root_or_format_names_the_key(tmp_path: Path) -> None:
    for call in (find_photos, load):
        with pytest.raises(InputError, match=r"nowhere is not a folder: set dataset\.root"):
            call("flickr8k", tmp_path / "nowhere")
        with pytest.raises(InputError, match=r"dataset\.format is 'parrot'"):
            call("parrot", tmp_path)


@pytest.mark.parametrize("format_name", CAPTION_FORMATS)
def test_a_root_without_photos_is_an_input_error(format_name: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match="has no photos"):
        find_photos(format_name, tmp_path)


def test_a_caption_file_that_cannot_be_opened_is_named() -> None:
    with dataset("kaggle", b"") as root:
        (root / "captions.txt").unlink()
        (root / "captions.txt").mkdir()
        with pytest.raises(InputError, match=r"captions\.txt cannot be read"):
            load("kaggle", root)


def test_a_folder_that_cannot_be_listed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    with dataset("kaggle", b"image,caption\na.jpg,A dog\n") as root:
        monkeypatch.setattr(os, "scandir", refuse)
        with pytest.raises(InputError, match=r"images cannot be read \(Permission denied\)"):
            find_photos("kaggle", root)
        monkeypatch.undo()


HOSTILE_LINES = [
    b" " * 10**6,
    b"a.jpg#0" + b" " * 10**6,
    b"#" * 10**6,
    b"#0" * 500_000,
    b'a.jpg,"' + b" " * 10**6,
    b'"' * 10**6,
    b".jpg " * 200_000,
    b'a,"b\n' * 50_000,
    b"\t" * 10**6,
    b"[" * 10**6,
    b'{"images": [' + b'{"filename": "a"},' * 50_000 + b"{}]}",
    b"\xff\xe9 " * 300_000,
]


@pytest.mark.parametrize("line", HOSTILE_LINES, ids=lambda line: repr(line[:8]))
@pytest.mark.parametrize("format_name", CAPTION_FORMATS)
def test_a_hostile_line_takes_no_time(format_name: str, line: bytes) -> None:
    header = b"image,caption\n" if format_name == "kaggle" else b""
    start = time.process_time()
    check(format_name, header + line)
    assert time.process_time() - start < 8


@pytest.mark.parametrize("given_format", CAPTION_FORMATS)
@pytest.mark.parametrize("format_name", CAPTION_FORMATS)
def test_a_file_of_another_format_under_a_readers_name_is_refused(
    format_name: str, given_format: str
) -> None:
    sentences = [{"raw": "A dog runs there"}]
    photos = ["a.jpg", "b.jpg", "c.jpg"]
    texts = {
        "flickr8k": "".join(f"{name}#0\tA dog runs there\n" for name in photos * 3),
        "kaggle": "image,caption\n" + "".join(f"{name},A dog, it runs\n" for name in photos * 3),
        "karpathy": json.dumps(
            {"images": [{"filename": n, "split": "train", "sentences": sentences} for n in photos]}
        ),
        "coco": json.dumps(
            {
                "images": [{"id": n, "file_name": name} for n, name in enumerate(photos)],
                "annotations": [{"image_id": n, "caption": "A dog"} for n in range(3)],
            }
        ),
    }
    if format_name == given_format:
        return
    with (
        dataset(format_name, texts[given_format].encode()) as root,
        pytest.raises(InputError) as caught,
    ):
        load(format_name, root)
    assert FILES[format_name] in str(caught.value)
    if format_name in {"flickr8k", "kaggle"}:
        assert "it looks like" in str(caught.value)


def test_the_error_when_no_name_fits_shows_names_of_both_sides() -> None:
    rows = "".join(f"dog{number}.jpg,A dog\n" for number in range(5))
    with (
        dataset("kaggle", f"image,caption\n{rows}".encode()) as root,
        pytest.raises(InputError, match=r"the captions name 'dog0\.jpg', 'dog1\.jpg', 'dog2\.jpg'"),
    ):
        load("kaggle", root)


def test_all_missing_photos_and_other_files_are_listed(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "images" / name).touch()
    (tmp_path / "images/c.heic").write_bytes(b"\0\0\0\x18ftypheic")
    missing = [f"z{number}.jpg" for number in range(9)]
    rows = "".join(f"{name},A dog\n" for name in ["a.jpg", "c.jpg", *missing])
    (tmp_path / "captions.txt").write_text(f"image,caption\n{rows}")
    summary = load("kaggle", tmp_path).summary
    assert summary.dropped == {"photo_of_other_type": 1, "photo_not_there": 9}
    assert summary.photo_lists == {
        "photo_not_there": missing,
        "photo_of_other_type": ["c.jpg"],
        "in_no_split": [],
        "without_captions": ["b.jpg"],
    }
    assert list(summary.nearest_photos) == missing[:3]
    (other,) = summary.other_files.values()
    assert (other["count"], other["files"]) == (1, ["c.heic"])
    assert "convert to JPEG" in other["fix"]


@pytest.mark.parametrize(
    ("files", "hint"),
    [
        (
            {"images/a.heic": b"\0\0\0\x18ftypheic"},
            "photo folder has 1 HEIC photo: convert to",
        ),
        ({"photos/a.jpg": b"x"}, "its folder photos has photos: rename it to images"),
        ({"all.csv": b"image,caption\na.jpg,A dog runs on\n"}, r"all\.csv is there; it looks like"),
    ],
)
def test_the_error_without_photos_names_what_is_there(
    tmp_path: Path, files: dict[str, bytes], hint: str
) -> None:
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=f"has no photos.*{hint}"):
        find_photos("kaggle", tmp_path)
