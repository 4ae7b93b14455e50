from pathlib import Path

import pytest

from pipeline.datasets.annotations import Annotations
from pipeline.datasets.formats import read_annotations
from pipeline.errors import InputError

SHARED = Path(__file__).parents[2].parent / "shared" / "flickr8k"
TOKENS = "a.jpg#0\tA dog .\na.jpg#1\tA cat .\nb.jpg#0\tTwo birds .\nc.jpg#0\tA cow .\n"


def write_dataset(
    root: Path, tokens: str | bytes = TOKENS, text_folder: str = ".", **lists: str
) -> Path:
    folder = root / text_folder
    folder.mkdir(exist_ok=True)
    data = tokens if isinstance(tokens, bytes) else tokens.encode()
    (folder / "Flickr8k.token.txt").write_bytes(data)
    for split, names in (lists or {"train": "a.jpg\n", "dev": "b.jpg", "test": "c.jpg"}).items():
        (folder / f"Flickr_8k.{split}Images.txt").write_text(names)
    (root / "images").mkdir()
    for name in "abcd":
        (root / "images" / f"{name}.jpg").touch()
    return root


def load(root: Path) -> Annotations:
    return read_annotations("flickr8k", root, split_seed=1, dev_share=0.1, test_share=0.1)


@pytest.mark.parametrize("text_folder", [".", "Flickr8k_text"])
def test_captions_and_splits_are_read(tmp_path: Path, text_folder: str) -> None:
    annotations = load(write_dataset(tmp_path, text_folder=text_folder))
    rows = [(row.image_id, row.caption_index, row.raw, row.split) for row in annotations.rows]
    assert rows == [
        ("a.jpg", 0, "A dog .", "train"),
        ("a.jpg", 1, "A cat .", "train"),
        ("b.jpg", 0, "Two birds .", "dev"),
        ("c.jpg", 0, "A cow .", "test"),
    ]
    assert annotations.summary.dropped == {}
    assert annotations.summary.photos_without_captions == 1


def test_malformed_lines_are_counted_and_blank_ones_ignored(tmp_path: Path) -> None:
    malformed = "no tab\na.jpg\tno number\na.jpg#x\tx\n#1\tx\na.jpg#1234567890\tx\n\n  \n"
    annotations = load(write_dataset(tmp_path, malformed + TOKENS))
    assert annotations.summary.dropped == {"malformed": 5}
    assert annotations.summary.captions_read == 9
    assert annotations.summary.examples["malformed"][0] == "Flickr8k.token.txt:1: 'no tab'"


def test_a_caption_may_contain_tabs_and_number_signs(tmp_path: Path) -> None:
    annotations = load(write_dataset(tmp_path, "a.jpg#0\tthe\t#1 dog\n"))
    assert [row.raw for row in annotations.rows] == ["the\t#1 dog"]


def test_files_from_windows_are_read(tmp_path: Path) -> None:
    annotations = load(
        write_dataset(tmp_path, b"\xef\xbb\xbf" + TOKENS.replace("\n", "\r\n").encode())
    )
    assert annotations.summary.captions_kept == 4
    assert annotations.summary.repaired == {"byte_order_mark": 1, "crlf_line_ends": 4}


def test_overlapping_lists_and_missing_photos_are_counted(tmp_path: Path) -> None:
    lists = {"train": "a.jpg\nb.jpg\nz.jpg\n../x.jpg\n", "test": "b.jpg\n"}
    summary = load(write_dataset(tmp_path, **lists)).summary
    assert summary.photos_per_split == {"train": 1, "dev": 0, "test": 1}
    assert summary.photos_in_two_splits == 1
    assert summary.listed_photos_not_there == 2
    assert summary.dropped == {"photo_in_no_split": 1}
    assert summary.photos_in_no_split == 1
    assert summary.noted == {"split_list_missing": 1, "photo_in_two_splits": 1}


def test_the_error_without_any_split_list_names_the_fix(tmp_path: Path) -> None:
    root = write_dataset(tmp_path)
    for path in root.glob("*Images.txt"):
        path.unlink()
    with pytest.raises(InputError, match=r"Flickr_8k\.trainImages\.txt.*dataset\.format: kaggle"):
        load(root)


def test_a_data_set_without_training_photos_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no captions for training"):
        load(write_dataset(tmp_path, dev="a.jpg"))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the 900 photos of ../shared are not there")
def test_the_real_data_set_is_read() -> None:
    annotations = load(SHARED)
    summary = annotations.summary
    assert summary.captions_read == 39_815
    assert summary.photos_there == 900
    assert summary.photos_per_split == {"train": 700, "dev": 76, "test": 115}
    assert summary.captions_per_split == {"train": 3500, "dev": 380, "test": 575}
    assert summary.photos_in_no_split == 9
    assert summary.photos_not_there == 7063
    assert summary.dropped == {"photo_not_there": 35_315, "photo_in_no_split": 45}
    assert summary.noted == {"stray_suffix_not_there": 5}
    assert {row.caption_index for row in annotations.rows} == {0, 1, 2, 3, 4}
