from pathlib import Path
from typing import Any

import pytest

from pipeline.comparison.run_software import software_differences
from pipeline.files import write_json

SOFTWARE = {"backend": "tensorflow", "keras": "3.15.1"}


def write_run(folder: Path, metadata: Any) -> str:
    write_json(folder / "model" / "model.json", {"metadata": metadata})
    (folder / "evaluation").mkdir()
    return str(folder)


def test_what_differs_is_listed(tmp_path: Path) -> None:
    first = write_run(tmp_path / "one", {"software": SOFTWARE})
    other = {"backend": "jax", "keras": "3.15.1", "jax": "0.10"}
    second = write_run(tmp_path / "two", {"software": other})
    expected = [
        "trained with other software: backend tensorflow and jax",
        "trained with other software: jax None and 0.10",
    ]
    assert software_differences([first, second], tmp_path) == expected
    evaluations = [f"{run}/evaluation" for run in (first, second)]
    assert software_differences(evaluations, tmp_path) == expected
    assert software_differences([first, first], tmp_path) == []


@pytest.mark.parametrize("metadata", [{}, [], {"software": 3}, None])
def test_a_run_that_records_nothing_has_no_differences(tmp_path: Path, metadata: Any) -> None:
    first = write_run(tmp_path / "one", {"software": SOFTWARE})
    second = write_run(tmp_path / "two", metadata)
    assert software_differences([first, second], tmp_path) == []


def test_caption_files_and_damaged_models_have_no_differences(tmp_path: Path) -> None:
    first = write_run(tmp_path / "one", {"software": SOFTWARE})
    (tmp_path / "captions.json").write_text("{}")
    assert software_differences([first, str(tmp_path / "captions.json")], tmp_path) == []
    second = write_run(tmp_path / "two", {})
    (tmp_path / "two" / "model" / "model.json").write_text("{")
    assert software_differences([first, second], tmp_path) == []


def test_versions_from_a_file_cannot_break_the_line(tmp_path: Path) -> None:
    first = write_run(tmp_path / "one", {"software": {"keras": "3\n\x1b[31m"}})
    second = write_run(tmp_path / "two", {"software": SOFTWARE})
    (line, _) = sorted(software_differences([first, second], tmp_path), reverse=True)
    assert "\n" not in line
    assert "\x1b" not in line
