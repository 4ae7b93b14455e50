import os
from pathlib import Path

from pipeline.datasets.annotations import Summary
from pipeline.datasets.duplicates import find_duplicates, note_duplicates

CONTENTS = {
    "a.jpg": b"x" * 5000,
    "b.jpg": b"x" * 5000,
    "sub/c.jpg": b"x" * 5000,
    "head.jpg": b"y" + b"x" * 4999,
    "tail.jpg": b"x" * 4999 + b"y",
    "size.jpg": b"x" * 5001,
    "p.jpg": b"p",
    "q.jpg": b"p",
    "empty.jpg": b"",
    "empty too.jpg": b"",
}


def write_photos(root: Path) -> dict[str, Path]:
    for name, data in CONTENTS.items():
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return {name: root / "images" / name for name in CONTENTS}


def test_photos_with_equal_bytes_are_found(tmp_path: Path) -> None:
    photos = write_photos(tmp_path)
    (tmp_path / "images/folder.jpg").mkdir()
    for name in ("nowhere.jpg", "folder.jpg"):
        photos[name] = tmp_path / "images" / name
    os.mkfifo(tmp_path / "images/pipe.jpg")
    photos["pipe.jpg"] = tmp_path / "images/pipe.jpg"
    assert find_duplicates(photos, tmp_path) == [
        ["a.jpg", "b.jpg", "sub/c.jpg"],
        ["p.jpg", "q.jpg"],
    ]


def test_links_out_of_the_photo_folder_are_equal_if_they_lead_to_one_file(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(b"equal bytes")
    targets = {"a.jpg": "one", "b.jpg": "one", "c.jpg": "two"}
    for name, target in targets.items():
        (tmp_path / "images" / name).symlink_to(tmp_path / target)
    photos = {name: tmp_path / "images" / name for name in targets}
    assert find_duplicates(photos, tmp_path) == [["a.jpg", "b.jpg"]]


def test_only_duplicates_in_two_splits_are_named(tmp_path: Path) -> None:
    summary = Summary()
    splits = dict.fromkeys(CONTENTS, "train") | {"sub/c.jpg": "test"}
    note_duplicates(summary, write_photos(tmp_path), tmp_path, splits)
    group = {"a.jpg": "train", "b.jpg": "train", "sub/c.jpg": "test"}
    assert summary.duplicates_across_splits == [group]
    assert summary.duplicates_within_splits == 2
    assert summary.noted == {"same_photo_in_two_splits": 3}
    assert "a.jpg (train), b.jpg (train), sub/c.jpg (test)" in str(summary.examples)


def test_photos_without_captions_are_no_duplicates(tmp_path: Path) -> None:
    summary = Summary()
    note_duplicates(summary, write_photos(tmp_path), tmp_path, {"a.jpg": "train"})
    assert summary.noted == {}
