from pathlib import Path

import pytest

from pipeline.datasets.annotations import Annotations
from pipeline.datasets.formats import read_annotations
from pipeline.errors import InputError

SHARED = Path(__file__).parents[2].parent / "shared" / "flickr8k"
HEADER = "image,caption\n"


def write_dataset(root: Path, text: str, names: str = "abc") -> Path:
    (root / "captions.txt").write_bytes(text.encode())
    (root / "Images").mkdir()
    for name in names:
        (root / "Images" / f"{name}.jpg").touch()
    return root


def load(root: Path, *, dev_share: float = 0.0, test_share: float = 0.0) -> Annotations:
    return read_annotations(
        "kaggle", root, split_seed=5, dev_share=dev_share, test_share=test_share
    )


def pairs(annotations: Annotations) -> list[tuple[str, str]]:
    return [(row.image_id, row.raw) for row in annotations.rows]


def test_quoted_captions_may_contain_commas_quotes_and_line_ends(tmp_path: Path) -> None:
    rows = 'a.jpg,"A dog, a cat"\nb.jpg,"A ""big""\nbird"\nb.jpg,A 5" pipe\n\nc.jpg,A cow\n'
    annotations = load(write_dataset(tmp_path, HEADER + rows))
    assert pairs(annotations) == [
        ("a.jpg", "A dog, a cat"),
        ("b.jpg", 'A "big"\nbird'),
        ("b.jpg", 'A 5" pipe'),
        ("c.jpg", "A cow"),
    ]
    assert annotations.summary.repaired == {}
    assert annotations.summary.dropped == {}


def test_an_open_quote_swallows_no_other_caption(tmp_path: Path) -> None:
    annotations = load(
        write_dataset(tmp_path, HEADER + 'a.jpg,"A dog\nb.jpg,A "bird"\nc.jpg,"A cow')
    )
    assert pairs(annotations) == [("a.jpg", "A dog"), ("b.jpg", 'A "bird"'), ("c.jpg", "A cow")]
    assert annotations.summary.repaired == {"open_quote": 2}


def test_an_open_quote_swallows_no_other_caption_if_all_columns_are_quoted(
    tmp_path: Path,
) -> None:
    rows = ['"a.jpg","A dog"', '"b.jpg","A bird', '"c.jpg","A cow"', '"a.jpg","A', 'hen"']
    annotations = load(write_dataset(tmp_path, "\n".join(['"image","caption"', *rows])))
    assert pairs(annotations) == [
        ("a.jpg", "A dog"),
        ("a.jpg", "A\nhen"),
        ("b.jpg", "A bird"),
        ("c.jpg", "A cow"),
    ]
    assert annotations.summary.repaired == {"open_quote": 1}


def test_a_quoted_name_may_contain_a_comma(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, HEADER + '"a,1.jpg","A dog\nruns"\n"a,1.jpg",A cat\n')
    (root / "Images" / "a,1.jpg").touch()
    assert pairs(load(root)) == [("a,1.jpg", "A dog\nruns"), ("a,1.jpg", "A cat")]


def test_unquoted_commas_are_repaired(tmp_path: Path) -> None:
    annotations = load(write_dataset(tmp_path, HEADER + "a.jpg,A dog, a cat,a cow\n"))
    assert pairs(annotations) == [("a.jpg", "A dog, a cat,a cow")]
    assert annotations.summary.repaired == {"unquoted_comma": 1}


@pytest.mark.parametrize(
    "rows",
    [
        "image,c1,c2,c3\n" + "a.jpg,A dog runs,A cat sits,A cow eats\n" * 9,
        "a.jpg,A dog runs there,train\n" * 9,
        'a.jpg,"A dog\n' * 9,
        "a.jpg|0|A dog runs there\n" * 9,
    ],
)
def test_a_file_of_which_every_row_needs_repair_has_another_format(
    tmp_path: Path, rows: str
) -> None:
    with pytest.raises(InputError, match=r"captions\.txt is not in the format kaggle: .* rows do"):
        load(write_dataset(tmp_path, HEADER + rows))


def test_commas_without_quotes_in_nearly_every_row_are_to_be_quoted(tmp_path: Path) -> None:
    rows = "".join(f"a.jpg,A dog{', wet' * (number % 4 + 1)}\n" for number in range(12))
    with pytest.raises(
        InputError, match=r"12 of 12 rows do not .* put quotes around every caption"
    ):
        load(write_dataset(tmp_path, HEADER + rows))


def test_unquoted_commas_in_a_part_of_the_rows_are_repaired(tmp_path: Path) -> None:
    rows = "a.jpg,A dog, wet\n" * 8 + "b.jpg,A cat\n" * 2
    assert load(write_dataset(tmp_path, HEADER + rows)).summary.repaired == {"unquoted_comma": 8}


@pytest.mark.parametrize(
    "header", ["image,caption,split", "image_name| comment_number| comment", "image\tcaption"]
)
def test_a_header_of_other_columns_is_never_to_be_added_to(tmp_path: Path, header: str) -> None:
    separator = next(mark for mark in "|\t," if mark in header)
    columns = ["a.jpg", *["A dog runs there"] * header.count(separator)]
    text = "\n".join([header, *[separator.join(columns)] * 6])
    with pytest.raises(InputError, match=r"line 1.*looks like a table of . columns") as caught:
        load(write_dataset(tmp_path, text))
    assert "add at the top" not in str(caught.value)
    assert "run `mv " in str(caught.value)


def test_lines_without_a_comma_are_malformed(tmp_path: Path) -> None:
    annotations = load(write_dataset(tmp_path, HEADER + "a.jpg\na.jpg,x\na.jpg," + "x" * 200_000))
    assert annotations.summary.dropped == {"malformed": 2}
    assert annotations.summary.examples["malformed"][0] == "captions.txt:2: 'a.jpg'"


def test_line_numbers_include_lines_inside_quotes(tmp_path: Path) -> None:
    annotations = load(write_dataset(tmp_path, HEADER + 'a.jpg,"x\r\ny"\r\nz.jpg,x\r\n'))
    assert annotations.summary.examples["photo_not_there"] == ["captions.txt:4: 'z.jpg'"]


@pytest.mark.parametrize("text", ["", "a.jpg,A dog\n", "caption,image\nA dog,a.jpg\n"])
def test_another_header_is_an_input_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"captions\.txt, line 1.*image,caption"):
        load(write_dataset(tmp_path, text))


def test_splits_are_drawn_by_photo_and_a_new_photo_moves_none(tmp_path: Path) -> None:
    def splits(folder: str, names: str) -> dict[str, str]:
        root = tmp_path / folder
        root.mkdir()
        text = HEADER + "".join(f"{name}.jpg,x\n{name}.jpg,y\n" for name in names)
        annotations = load(write_dataset(root, text, names), dev_share=0.3, test_share=0.3)
        photo_splits = {(row.image_id, row.split) for row in annotations.rows}
        assert len(photo_splits) == len(names)
        return dict(photo_splits)

    fewer, more = splits("few", "abcdefgh"), splits("more", "zyabcdefgh")
    assert set(fewer.values()) == {"train", "dev", "test"}
    assert {name: more[name] for name in fewer} == fewer


@pytest.mark.skipif(not SHARED.is_dir(), reason="the 900 photos of ../shared are not there")
def test_the_real_data_set_is_read() -> None:
    summary = load(SHARED, dev_share=0.1, test_share=0.1).summary
    assert summary.captions_read == 39_810
    assert summary.photos_kept == 900
    assert summary.captions_kept == 4500
    assert sum(summary.photos_per_split.values()) == 900
    assert all(60 < summary.photos_per_split[split] < 120 for split in ("dev", "test"))
    assert summary.dropped == {"photo_not_there": 35_310}
    assert summary.repaired == {}
