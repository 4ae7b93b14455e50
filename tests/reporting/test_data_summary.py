from pathlib import Path
from typing import Any

import pytest

from pipeline.datasets.annotations import Summary
from pipeline.datasets.caption_table import read_caption_table
from pipeline.errors import InputError
from pipeline.files import write_json
from pipeline.image_types import identify
from pipeline.reporting.data_summary import Change, DataSummary, SplitSummary, read_data_summary
from tests.support.captioner import write_captions

TRAIN = [("a.jpg", "a dog runs"), ("a.jpg", "a dog"), ("b.jpg", "a cat sits on a mat")]
TEST = [("x.jpg", "a bus"), ("y.jpg", "a red bus")]


def summary(folder: Path, captions_json: Any, extract_json: Any) -> DataSummary:
    write_captions(folder / "captions.parquet", {"train": TRAIN, "test": TEST})
    write_json(folder / "captions.json", captions_json)
    write_json(folder / "extract.json", extract_json)
    return read_data_summary(folder, read_caption_table(folder / "captions.parquet"))


def test_splits_lengths_and_words_come_from_the_table(tmp_path: Path) -> None:
    data = summary(tmp_path, Summary().as_dict(), {"failed": {}})
    assert data.splits == [
        SplitSummary("train", 2, 3, 3.0, 2, 6, 7),
        SplitSummary("test", 2, 2, 2.5, 2, 3, 3),
    ]
    assert data.lengths == [("2", 1), ("3", 1), ("4", 0), ("5", 0), ("6", 1)]
    assert data.frequent_words[:2] == ["a", "dog"]
    assert (data.changes, data.counts, data.listed, data.failed) == ([], [], [], [])
    assert data.failed_test_photos == 0


def test_many_lengths_share_rows(tmp_path: Path) -> None:
    long = [("a.jpg", " ".join(["word"] * n)) for n in (1, 30)]
    write_captions(tmp_path / "captions.parquet", {"train": long, "test": TEST})
    write_json(tmp_path / "captions.json", {})
    write_json(tmp_path / "extract.json", {})
    data = read_data_summary(tmp_path, read_caption_table(tmp_path / "captions.parquet"))
    assert data.lengths[0] == ("1 to 3", 1)
    assert data.lengths[-1] == ("28 to 30", 1)
    assert len(data.lengths) == 10


def test_what_clean_and_extract_left_out_is_listed_with_its_reasons(tmp_path: Path) -> None:
    counted = Summary(photos_not_there=3)
    counted.photo_lists |= {"photo_not_there": ["b.jpg", "c.jpg"], "in_no_split": []}
    counted.add_other_files({"d.heic": identify(b"\0\0\0\x18ftypheic")})
    counted.drop("photo_not_there", "captions.txt, line 9", "b.jpg")
    counted.drop("no words", "captions.txt, line 7", "!")
    counted.repair("two spaces", "captions.txt, line 8", "a  b", 2)
    failed = {"y.jpg": "empty file", "no-captions.jpg": "not a file", "a.jpg": "damaged image"}
    data = summary(tmp_path, counted.as_dict(), {"failed": failed})
    assert data.changes == [
        Change("dropped", "no words", 1, ["captions.txt, line 7: '!'"]),
        Change(
            "dropped",
            "photo_not_there (no such photo in the photo folder)",
            1,
            ["captions.txt, line 9: 'b.jpg'"],
        ),
        Change("repaired", "two spaces", 2, ["captions.txt, line 8: 'a  b'"]),
    ]
    assert ("photos not there", 3) in data.counts
    (other, photos) = data.listed
    assert photos == ("photo lists: photo not there", ["b.jpg", "c.jpg"])
    assert (other[0], other[1][1:]) == ("other files: HEIC photos", ["d.heic"])
    assert other[1][0].startswith("convert to JPEG")
    assert data.failed == [
        ("a.jpg", "train", "damaged image"),
        ("no-captions.jpg", "", "not a file"),
        ("y.jpg", "test", "empty file"),
    ]
    assert data.failed_test_photos == 1


def test_entries_of_other_versions_are_shown_as_they_are(tmp_path: Path) -> None:
    counted = {
        "same_photos": [["a.jpg", "x.jpg"], {"train": "b.jpg", "test": "y.jpg"}],
        "by_split": {"train": ["a.jpg"]},
        "odd": 4,
        "dropped": None,
        "repaired": {"x": "y"},
        "examples": 7,
        "ok": True,
    }
    data = summary(tmp_path, counted, {"failed": None})
    assert data.listed == [
        ("by split: train", ["a.jpg"]),
        ("same photos", ["a.jpg, x.jpg", "test: y.jpg, train: b.jpg"]),
    ]
    assert data.counts == [("odd", 4)]
    assert (data.changes, data.failed) == ([], [])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_captions(tmp_path / "captions.parquet", {"train": TRAIN, "test": TEST})
    table = read_caption_table(tmp_path / "captions.parquet")
    with pytest.raises(InputError, match=r"captions\.json is not there: run `dvc repro clean`"):
        read_data_summary(tmp_path, table)
