import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.datasets import reasons
from pipeline.datasets.caption_table import read_caption_table
from pipeline.errors import InputError
from pipeline.params import CleanParams
from pipeline.stages import clean

PIPELINE = Path(__file__).parents[2] / "pipeline"
TRAIN_ROWS = "image,caption\ni.jpg,A dog runs .\nz.jpg,A cat\ni.jpg,A dog\n"
ALL_ROWS = TRAIN_ROWS + "c.jpg,A hen\na.jpg,A hen\nb.jpg,A bird\nd.jpg,A bird\n"
# With this seed i is in train, a and c in dev, b and d in test.
PHOTOS = ("i.jpg", "a.jpg", "c.jpg", "b.jpg", "d.jpg")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    set_params(monkeypatch, share=0.3)
    (tmp_path / "data" / "images").mkdir(parents=True)
    for name in PHOTOS:
        (tmp_path / "data" / "images" / name).touch()
    return tmp_path


def set_params(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    params = SimpleNamespace(
        dataset=SimpleNamespace(format="kaggle", root="data"),
        clean=CleanParams(style="default", split_seed=1, dev_share=share, test_share=share),
    )
    monkeypatch.setattr(clean, "load_params", lambda: params)


def write_captions_file(folder: Path, rows: str = ALL_ROWS) -> None:
    (folder / "data" / "captions.txt").write_text(rows)


def test_the_stage_writes_table_and_summary(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_captions_file(folder)
    clean.main()
    table = read_caption_table(folder / "artifacts" / "captions.parquet")
    assert table.references("train") == {"i.jpg": ["A dog runs .", "A dog"]}
    assert table.provenance["dataset_format"] == "kaggle"
    assert table.provenance["clean"]["style"] == "default"
    summary = json.loads((folder / "artifacts" / "captions.json").read_text())
    assert summary["captions_kept"] == 6
    assert summary["dropped"] == {"photo_not_there": 1}
    output = capsys.readouterr().out
    assert "kept 6 of 7 captions and 5 of 5 photos" in output
    assert "dropped: photo_not_there 1" in output


def test_the_terminal_says_what_is_wrong_in_plain_words(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = folder / "data/images"
    (images / "e.heic").write_bytes(b"\0\0\0\x18ftypheic")
    for name in ("a.jpg", "b.jpg"):  # in dev and test
        (images / name).write_bytes(b"equal bytes")
    write_captions_file(folder, ALL_ROWS + "e.jpg,A cow\nimages/a.JPG,A hen, brown\n")
    clean.main()
    output = capsys.readouterr().out
    for line in (
        "dropped: photo_of_other_type 1 (the file is no JPEG, PNG or WebP photo)",
        "repaired: photo_name 1 (the photo has almost that name, and nothing else could be meant)",
        "for example captions.txt:10: 'images/a.JPG -> a.jpg'",
        "noted: same_photo_in_two_splits 2 (photos of equal bytes in different splits",
        "for example equal bytes: 'a.jpg (dev), b.jpg (test)'",
        "not there: 'z.jpg'; the photo most like it: ",
        "no photos: HEIC photos: 1 (convert to JPEG",
    ):
        assert line in output
    assert output.endswith(f"were left out: {clean.SUMMARY}\n")


def test_every_reason_has_a_meaning() -> None:
    code = "".join(
        path.read_text()
        for folder in ("datasets", "text")
        for path in (PIPELINE / folder).glob("*.py")
    )
    for method, meanings in (
        ("drop", reasons.DROPPED),
        ("repair", reasons.REPAIRED),
        ("note", reasons.NOTED),
    ):
        used = set(re.findall(rf'summary\.{method}\(\s*"(\w+)"', code))
        assert used
        assert used <= meanings.keys()


def test_running_twice_gives_equal_bytes(folder: Path) -> None:
    write_captions_file(folder)
    outputs = [folder / clean.TABLE, folder / clean.SUMMARY]
    clean.main()
    first = [path.read_bytes() for path in outputs]
    clean.main()
    assert [path.read_bytes() for path in outputs] == first


@pytest.mark.parametrize(
    ("rows", "splits"),
    [(TRAIN_ROWS, "dev and test"), (ALL_ROWS.removesuffix("d.jpg,A bird\n"), "test")],
)
def test_a_split_with_too_few_photos_is_rejected_before_anything_is_written(
    folder: Path, rows: str, splits: str
) -> None:
    write_captions_file(folder, rows)
    with pytest.raises(
        InputError, match=rf"data has fewer than 2 photos for {splits} \(.*clean\.split_seed"
    ):
        clean.main()
    assert not (folder / "artifacts").exists()


def test_bad_input_writes_nothing(folder: Path) -> None:
    with pytest.raises(InputError, match="kaggle expects"):
        clean.main()
    assert not (folder / "artifacts").exists()
