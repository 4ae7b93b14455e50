import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.datasets.table import read_table
from pipeline.errors import InputError
from pipeline.params import Clean
from pipeline.stages import clean


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    params = SimpleNamespace(
        dataset=SimpleNamespace(format="kaggle", root="data"),
        clean=Clean(style="default", split_seed=1, dev_share=0.0, test_share=0.0),
    )
    monkeypatch.setattr(clean, "load_params", lambda: params)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "images" / "a.jpg").touch()
    return tmp_path


def test_the_stage_writes_table_and_summary(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "image,caption\na.jpg,A dog runs .\nz.jpg,A cat\na.jpg,A dog\n"
    (folder / "data" / "captions.txt").write_text(rows)
    clean.main()
    table = read_table(folder / "artifacts" / "captions.parquet")
    assert table.references("train") == {"a.jpg": ["A dog runs .", "A dog"]}
    assert table.provenance["dataset_format"] == "kaggle"
    assert table.provenance["clean"]["style"] == "default"
    summary = json.loads((folder / "artifacts" / "captions.json").read_text())
    assert summary["captions_kept"] == 2
    assert summary["dropped"] == {"photo_not_there": 1}
    shown = capsys.readouterr().out
    assert "2 of 3 captions kept, of 1 of 1 photos" in shown
    assert "dropped: photo_not_there 1" in shown


def test_running_twice_gives_equal_bytes(folder: Path) -> None:
    (folder / "data" / "captions.txt").write_text("image,caption\na.jpg,A dog\n")
    outputs = [folder / clean.TABLE, folder / clean.SUMMARY]
    clean.main()
    first = [path.read_bytes() for path in outputs]
    clean.main()
    assert [path.read_bytes() for path in outputs] == first


def test_bad_input_writes_nothing(folder: Path) -> None:
    with pytest.raises(InputError, match="kaggle expects"):
        clean.main()
    assert not (folder / "artifacts").exists()
