import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.datasets.caption_table import (
    METADATA_KEY,
    SCHEMA,
    read_caption_table,
    write_caption_table,
)
from pipeline.errors import InputError

ROWS = [
    ("a.jpg", "train", 0, "A dog .", "a dog", 2),
    ("a.jpg", "train", 1, "Ein Dackel läuft", "ein dackel läuft", 3),
    ("b.jpg", "dev", 0, "Birds", "birds", 1),
    ("ä.jpg", "train", 0, "Cow", "cow", 1),
]


def make_frame(rows: list[tuple[Any, ...]] | None = None) -> pd.DataFrame:
    return pd.DataFrame(ROWS if rows is None else rows, columns=SCHEMA.names)


def write_unchecked(
    path: Path, provenance: object, rows: list[tuple[Any, ...]], schema: Any = SCHEMA
) -> None:
    table = pa.Table.from_pylist(
        [dict(zip(SCHEMA.names, row, strict=True)) for row in rows], schema
    )
    metadata = {} if provenance is None else {METADATA_KEY: json.dumps(provenance)}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def test_a_table_survives_writing_and_reading(tmp_path: Path) -> None:
    path = tmp_path / "captions.parquet"
    write_caption_table(path, make_frame(ROWS[::-1]), {"dataset_format": "kaggle"})
    table = read_caption_table(path)
    assert list(table.frame.itertuples(index=False, name=None)) == ROWS
    assert table.provenance == {
        "dataset_format": "kaggle",
        "format_version": 1,
        "fingerprint": table.fingerprint,
    }
    assert list(table.references("train")) == ["a.jpg", "ä.jpg"]
    assert table.texts("train") == ["a dog", "ein dackel läuft", "cow"]
    assert table.references("train") == {"a.jpg": ["A dog .", "Ein Dackel läuft"], "ä.jpg": ["Cow"]}
    assert table.references("test") == {}


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "1.parquet", tmp_path / "2.parquet"
    write_caption_table(first, make_frame(), {"a": 1, "b": 2})
    write_caption_table(second, make_frame(ROWS[::-1]), {"b": 2, "a": 1})
    assert first.read_bytes() == second.read_bytes()
    assert b"pandas" not in first.read_bytes()
    assert pq.read_schema(first).equals(SCHEMA)


def test_the_fingerprint_covers_all_columns_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "captions.parquet"
    changes: list[dict[str, Any]] = [
        {},
        {"image_id": "0.jpg"},
        {"split": "test"},
        {"caption_index": 7},
        {"raw": "Birds ."},
        {"text": "bird"},
        {"text": "two birds", "n_words": 2},
    ]
    fingerprints = []
    for change in changes:
        write_caption_table(path, make_frame(ROWS[2:3]).assign(**change), {"a": 1})
        fingerprints.append(read_caption_table(path).fingerprint)
        write_caption_table(path, make_frame(ROWS[2:3]).assign(**change), {"a": 2})
        assert read_caption_table(path).fingerprint == fingerprints[-1]
    assert len(set(fingerprints)) == len(changes)


BROKEN = [
    ([], "no captions"),
    ([("a.jpg", "train", 0, None, "x", 1)], "missing value"),
    ([("a.jpg", "train", 0, " ", "x", 1)], "empty raw"),
    ([("a.jpg", "train", 0, "x", "", 0)], "empty text"),
    ([("", "train", 0, "x", "x", 1)], "empty image_id"),
    ([("a.jpg", "val", 0, "x", "x", 1)], "split other than"),
    ([("a.jpg", "train", 0, "x", "x", 1)] * 2, "same image_id"),
    ([("a.jpg", "train", 0, "x", "x", 1), ("a.jpg", "dev", 1, "x", "x", 1)], "in two splits"),
    ([("a.jpg", "train", 0, "x", "x y", 1)], "n_words"),
]


@pytest.mark.parametrize(("rows", "problem"), BROKEN)
def test_invalid_rows_are_not_written(
    tmp_path: Path, rows: list[tuple[Any, ...]], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        write_caption_table(tmp_path / "captions.parquet", make_frame(rows), {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("rows", "problem"), [*BROKEN[:1], *BROKEN[2:], (ROWS[::-1], "not sorted")]
)
def test_invalid_rows_are_not_read(
    tmp_path: Path, rows: list[tuple[Any, ...]], problem: str
) -> None:
    path = tmp_path / "captions.parquet"
    write_unchecked(path, {"format_version": 1}, rows)
    with pytest.raises(InputError, match=rf"{problem}.*dvc repro clean"):
        read_caption_table(path)


@pytest.mark.parametrize(
    ("provenance", "problem"),
    [
        (None, "has no metadata about how it was made"),
        ([1], "has no metadata about how it was made"),
        ({"format_version": 2}, "version 2, not 1"),
        ({}, "version None"),
        ({"format_version": 1}, "fingerprint"),
        ({"format_version": 1, "fingerprint": "0"}, "fingerprint"),
    ],
)
def test_other_versions_and_changed_contents_are_rejected(
    tmp_path: Path, provenance: object, problem: str
) -> None:
    path = tmp_path / "captions.parquet"
    write_unchecked(path, provenance, ROWS)
    with pytest.raises(InputError, match=rf"captions\.parquet.*{problem}.*dvc repro clean"):
        read_caption_table(path)


def test_other_columns_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "captions.parquet"
    schema = SCHEMA.set(5, pa.field("n_words", pa.int64(), nullable=False))
    write_unchecked(path, {"format_version": 1}, ROWS, schema)
    with pytest.raises(InputError, match="does not have the columns of a caption table"):
        read_caption_table(path)


def test_the_error_for_a_missing_file_names_it_and_the_fix(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"captions\.parquet is not there: run `dvc repro clean`"):
        read_caption_table(tmp_path / "captions.parquet")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_rejected_or_has_the_same_rows(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.parquet"
    write_caption_table(path, make_frame(), {})
    intact = path.read_bytes()
    position = data.draw(st.integers(0, len(intact) - 1))
    value = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(intact), position]))
    path.write_bytes((intact[:position] + bytes([value]) + intact[position + 1 :])[:cut])
    try:
        table = read_caption_table(path)
    except InputError as error:
        assert "dvc repro clean" in str(error)  # noqa: PT017
    else:
        assert list(table.frame.itertuples(index=False, name=None)) == ROWS


def test_a_small_file_of_huge_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "captions.parquet"
    rows = [(f"{n}.jpg", "train", 0, "x" * 100_000, "x", 1) for n in range(2000)]
    write_unchecked(path, {"format_version": 1}, rows)
    assert path.stat().st_size < 500_000
    with pytest.raises(InputError, match=r"cannot be read as Parquet .*its rows are larger"):
        read_caption_table(path)
