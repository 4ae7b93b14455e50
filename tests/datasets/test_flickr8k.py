from pathlib import Path

import pytest

from pipeline.datasets.annotations import Annotations
from pipeline.datasets.formats import read
from pipeline.errors import InputError

SHARED = Path(__file__).parents[2].parent / "shared" / "flickr8k"
TOKENS = "a.jpg#0\tA dog .\na.jpg#1\tA cat .\nb.jpg#0\tTwo birds .\nc.jpg#0\tA cow .\n"


def lay(root: Path, tokens: str | bytes = TOKENS, texts: str = ".", **lists: str) -> Path:
    folder = root / texts
    folder.mkdir(exist_ok=True)
    data = tokens if isinstance(tokens, bytes) else tokens.encode()
    (folder / "Flickr8k.token.txt").write_bytes(data)
    for split, names in (lists or {"train": "a.jpg\n", "dev": "b.jpg", "test": "c.jpg"}).items():
        (folder / f"Flickr_8k.{split}Images.txt").write_text(names)
    (root / "images").mkdir()
    for name in "abcd":
        (root / "images" / f"{name}.jpg").touch()
    return root


def loaded(root: Path) -> Annotations:
    return read("flickr8k", root, split_seed=1, dev_share=0.1, test_share=0.1)


@pytest.mark.parametrize("texts", [".", "Flickr8k_text"])
def test_captions_and_splits_are_read(tmp_path: Path, texts: str) -> None:
    found = loaded(lay(tmp_path, texts=texts))
    rows = [(row.image_id, row.caption_index, row.raw, row.split) for row in found.rows]
    assert rows == [
        ("a.jpg", 0, "A dog .", "train"),
        ("a.jpg", 1, "A cat .", "train"),
        ("b.jpg", 0, "Two birds .", "dev"),
        ("c.jpg", 0, "A cow .", "test"),
    ]
    assert found.summary.dropped == {}
    assert found.summary.photos_without_captions == 1


def test_malformed_lines_are_counted_and_blank_ones_are_nothing(tmp_path: Path) -> None:
    bad = "no tab\na.jpg\tno number\na.jpg#x\tx\n#1\tx\na.jpg#1234567890\tx\n\n  \n"
    found = loaded(lay(tmp_path, bad + TOKENS))
    assert found.summary.dropped == {"malformed": 5}
    assert found.summary.captions_read == 9
    assert found.summary.examples["malformed"][0] == "Flickr8k.token.txt:1: 'no tab'"


def test_a_caption_may_hold_tabs_and_number_signs(tmp_path: Path) -> None:
    found = loaded(lay(tmp_path, "a.jpg#0\tthe\t#1 dog\n"))
    assert [row.raw for row in found.rows] == ["the\t#1 dog"]


def test_windows_files_read_the_same(tmp_path: Path) -> None:
    found = loaded(lay(tmp_path, b"\xef\xbb\xbf" + TOKENS.replace("\n", "\r\n").encode()))
    assert found.summary.captions_kept == 4
    assert found.summary.repaired == {"byte_order_mark": 1, "crlf_line_ends": 4}


def test_lists_that_overlap_or_name_absent_photos(tmp_path: Path) -> None:
    lists = {"train": "a.jpg\nb.jpg\nz.jpg\n../x.jpg\n", "test": "b.jpg\n"}
    summary = loaded(lay(tmp_path, **lists)).summary
    assert summary.photos_per_split == {"train": 1, "dev": 0, "test": 1}
    assert summary.photos_in_two_splits == 1
    assert summary.listed_photos_not_there == 2
    assert summary.dropped == {"photo_in_no_split": 1}
    assert summary.photos_in_no_split == 1
    assert summary.noted == {"split_list_missing": 1, "photo_in_two_splits": 1}


def test_without_any_list_the_mend_is_named(tmp_path: Path) -> None:
    root = lay(tmp_path)
    for path in root.glob("*Images.txt"):
        path.unlink()
    with pytest.raises(InputError, match=r"Flickr_8k\.trainImages\.txt.*dataset\.format: kaggle"):
        loaded(root)


def test_without_training_photos_there_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no captions for training"):
        loaded(lay(tmp_path, dev="a.jpg"))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the 900 photos of ../shared are not there")
def test_the_real_photos() -> None:
    found = loaded(SHARED)
    summary = found.summary
    assert summary.captions_read == 39_815
    assert summary.photos_there == 900
    assert summary.photos_per_split == {"train": 700, "dev": 76, "test": 115}
    assert summary.captions_per_split == {"train": 3500, "dev": 380, "test": 575}
    assert summary.photos_in_no_split == 9
    assert summary.photos_not_there == 7063
    assert summary.dropped == {"photo_not_there": 35_315, "photo_in_no_split": 45}
    assert summary.noted == {"stray_suffix_not_there": 5}
    assert {row.caption_index for row in found.rows} == {0, 1, 2, 3, 4}
