import csv
import json
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.comparison import caption_files
from pipeline.comparison.caption_files import Captions, read_captions
from pipeline.errors import InputError

TWO = {"1": ["a dog"], "2": ["a cat", "the cat"]}


def caption_rows(captions: Captions) -> list[tuple[str, str]]:
    return [(image_id, caption) for image_id, texts in captions.items() for caption in texts]


def caption_objects(captions: Captions) -> list[dict[str, str]]:
    return [
        {"image_id": image_id, "caption": caption} for image_id, caption in caption_rows(captions)
    ]


def write_caption_json(path: Path, captions: Captions) -> None:
    path.write_text(json.dumps(captions), "utf-8")


def write_raw_json(path: Path, captions: Captions) -> None:
    path.write_text(json.dumps(captions, ensure_ascii=False), "utf-8-sig", newline="")


def write_results(path: Path, captions: Captions) -> None:
    path.write_text(json.dumps(caption_objects(captions)), "utf-8")


def write_annotations(path: Path, captions: Captions) -> None:
    values = [{"id": number, **row} for number, row in enumerate(caption_objects(captions))]
    path.write_text(json.dumps({"images": [], "annotations": values}), "utf-8")


def write_json_lines(path: Path, captions: Captions) -> None:
    lines = [json.dumps(row, ensure_ascii=False) for row in caption_objects(captions)]
    path.write_text("\r\n".join(lines), "utf-8", newline="")


def write_csv(path: Path, captions: Captions) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("image_id", "caption"), *caption_rows(captions)])


def write_parquet(path: Path, captions: Captions) -> None:
    pq.write_table(pa.Table.from_pylist(caption_objects(captions)), path)


def write_parquet_lists(path: Path, captions: Captions) -> None:
    table = pa.table({"image": list(captions), "captions": list(captions.values())})
    pq.write_table(table, path)


WRITERS: dict[str, Callable[[Path, Captions], None]] = {
    "object.json": write_caption_json,
    "raw.json": write_raw_json,
    "results.json": write_results,
    "annotations.json": write_annotations,
    "lines.jsonl": write_json_lines,
    "lines.NDJSON": write_json_lines,
    "table.csv": write_csv,
    "table.parquet": write_parquet,
    "lists.parquet": write_parquet_lists,
}

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ['a "dog", running', "two\nlines", "\r", "", " ", "e\u0301t\u00e9", "\u2028", "\x00", "\ufeff"]
)
CAPTIONS = st.dictionaries(
    TEXT.filter(bool).map(lambda text: unicodedata.normalize("NFC", text)),
    st.lists(TEXT, min_size=1, max_size=3),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("captions")


@settings(max_examples=60, deadline=None)
@given(captions=CAPTIONS)
def test_every_format_is_read_back_as_it_was_written(
    shared_folder: Path, captions: Captions
) -> None:
    composed = {
        image_id: [unicodedata.normalize("NFC", caption) for caption in texts]
        for image_id, texts in captions.items()
    }
    for name, write in WRITERS.items():
        write(shared_folder / name, captions)
        result = read_captions(shared_folder / name)
        assert result == composed, name
        assert list(result) == list(captions), name


def write_file(tmp_path: Path, name: str, content: bytes | str) -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "numbers.json",
            '[{"image_id": 1, "caption": "a dog"}, {"image_id": 2, "captions": [%s]}]',
        ),
        ("names.json", '[{"image_id": "1", "caption": "a dog"}, {"id": "2", "raw": [%s]}]'),
        # COCO annotations have an id of their own, which is not the photo's.
        ("coco.json", '[{"id": 7, "image_id": 1, "caption": "a dog"}, {"photo": 2, "raw": [%s]}]'),
        ("object.json", '{"1": "a dog", "3": [], "2": [%s]}'),
        ("photos.jsonl", '{"photo": "a/1", "caption": "a dog"}\n\n{"photo": "./2", "raw": [%s]}\n'),
        ("bom.jsonl", '\ufeff{"image": 1, "caption": "a dog"}\r\n{"image": 2, "captions": [%s]}'),
        ("CAPITALS.JSON", '{"1": ["a dog"], "2": [%s]}'),
        ("bom.csv", "\ufeffimage,caption\r\n1,a dog\r\n2,a cat\r\n2,the cat\r\n"),
        ("pandas.csv", "image_id,caption\n1.0,a dog\n2.0,a cat\n2.0,the cat\n"),
        ("floats.json", '[{"image_id": 1.0, "caption": "a dog"}, {"image_id": 2, "raw": [%s]}]'),
        ("mac.csv", "image,caption\r1,a dog\r2,a cat\r2,the cat"),
        ("blank.csv", "filename,more,sentence\n\n1,x,a dog\n\n2,,a cat\n2,y,the cat\n\n"),
        ("more.csv", 'more,more,id,image_id,caption\n,,7,1,"a dog"\n,,8,2,a cat\n,,9,2,the cat\n'),
    ],
    ids=lambda value: value if "." in value and len(value) < 20 else "",
)
def test_the_keys_and_layouts_of_other_tools_are_understood(
    tmp_path: Path, name: str, content: str
) -> None:
    path = write_file(tmp_path, name, content.replace("%s", '"a cat", "the cat"'))
    assert read_captions(path) == TWO


def test_ids_with_differently_typed_accents_are_equal(tmp_path: Path) -> None:
    path = write_file(
        tmp_path, "both.json", json.dumps({"caf\u00e9": ["a"], "cafe\u0301": ["e\u0301"]})
    )
    assert read_captions(path) == {"caf\u00e9": ["a", "\u00e9"]}


def test_an_unpaired_surrogate_is_read_like_any_character(tmp_path: Path) -> None:
    # `caption image --json` writes a file name that is not UTF-8 this way.
    path = write_file(tmp_path, "half.json", r'{"caf\udce9": "\ud800 dog"}')
    assert read_captions(path) == {"caf\udce9": ["\ud800 dog"]}


def write_columns(tmp_path: Path, **columns: Any) -> Path:
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_may_have_numbers_dictionaries_and_other_columns(tmp_path: Path) -> None:
    captions = pa.array(["a dog", "a cat", "the cat"]).dictionary_encode()
    path = write_columns(tmp_path, image_id=[1, 2, 2], caption=captions, vector=[[1.0], None, []])
    assert read_captions(path) == TWO


def file_error(path: Path, defaults: dict[str, str] | None = None, **filters: str | None) -> str:
    """Return the error about a file, one line that starts with its path, without the path."""
    with pytest.raises(InputError) as caught:
        read_captions(path, defaults or {}, **filters)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert len(message.splitlines()) == 1
    assert len(message) < len(str(path)) + 600
    return message.removeprefix(str(path))


ROW = '[{"image_id": %s, "caption": "x"}]'
BAD_ID = "make it a name or a number"
BAD_CAPTION = "is not text: make it a caption or a list of captions"
EXPECTED = "it has to be a JSON object of ids to captions"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        # Empty.
        ("a.json", "", "Expecting value"),
        ("a.json", "{}", "contains no captions: give a file that does"),
        ("a.json", "[]", "contains no captions: give a file that does"),
        ("a.json", '{"1": []}', "contains no captions: give a file that does"),
        ("a.jsonl", "\n \n", "contains no captions: give a file that does"),
        ("a.csv", "", "contains no captions: give a file that does"),
        ("a.csv", "image_id,caption\r\n", "contains no captions: give a file that does"),
        ("a.parquet", "", "Parquet file size is 0 bytes"),
        # Another format.
        ("a.txt", "1 a dog", " is not a caption file: give a file that ends in .json, .jsonl"),
        ("json", "{}", " is not a caption file: give a file that ends in .json, .jsonl"),
        ("a.json", '"a dog"', f"(neither an object nor a list): {EXPECTED}"),
        ("a.json", "null", "neither an object nor a list"),
        ("a.json", '["a dog"]', "entry 1 is not an object"),
        ("a.json", '[{"image_id": 1, "caption": "x"}, ["2", "y"]]', "entry 2 is not an object"),
        ("a.jsonl", "NaN", "line 1 is not an object"),
        ("a.json", "[" * 100_000, "maximum recursion depth exceeded"),
        ("a.jsonl", '{"1":' * 100_000, "(line 1: maximum recursion depth exceeded"),
        ("a.json", "{'1': 'a dog'}", "Expecting property name enclosed in double quotes: line 1"),
        ("a.jsonl", '{"id": 1, "raw": "x"}\n{"id"', "line 2, character 6: Expecting ':'"),
        ("a.jsonl", '{"id": 1, "raw": "x"} {}', "line 1, character 23: Extra data"),
        ("a.parquet", "PAR1" + "\0" * 50 + "PAR1", "cannot be read (Couldn't deserialize thrift"),
        ("a.parquet", "image_id,caption\n1,a dog\n", "Parquet magic bytes not found"),
        # Another encoding.
        ("a.json", '{"1": "x"}'.encode("utf-16"), " is not UTF-8 (byte 0): save it as UTF-8 text"),
        ("a.csv", "image_id,caption".encode("utf-16"), " is not UTF-8 (byte 0)"),
        ("a.jsonl", '{"1": "caf\xe9"}'.encode("latin-1"), " is not UTF-8 (byte 10)"),
        # Invalid ids.
        ("a.json", ROW % "true", f", entry 1: image_id is True: {BAD_ID}"),
        ("a.json", ROW % "null", f", entry 1: image_id is None: {BAD_ID}"),
        ("a.json", ROW % "NaN", f", entry 1: image_id is nan: {BAD_ID}"),
        ("a.json", ROW % "1.5", f", entry 1: image_id is 1.5: {BAD_ID}"),
        ("a.json", ROW % '""', f", entry 1: image_id is '': {BAD_ID}"),
        ("a.json", ROW % ("[" * 300 + "]" * 300), "entry 1: image_id is [[[[[[[...]]]]]]]: make"),
        ("a.json", ROW % json.dumps(["x" * 10**6]), "entry 1: image_id is ['xxxx"),
        ("a.json", ROW % ("9" * 5000), "Exceeds the limit"),
        ("a.jsonl", '{"photo": "/", "caption": "x"}', f", line 1: photo is '/': {BAD_ID}"),
        ("a.csv", "image_id,caption\n1,x\n,y\n", f", line 3: image_id is '': {BAD_ID}"),
        # Invalid captions.
        ("a.json", '{"1": "x", "2": null}', f", key 2: captions {BAD_CAPTION}"),
        ("a.json", '{"1": ["x", null]}', f", key 1: captions {BAD_CAPTION}"),
        ("a.json", '{"1": [["x"]]}', f", key 1: captions {BAD_CAPTION}"),
        ("a.json", '{"1": NaN}', f", key 1: captions {BAD_CAPTION}"),
        ("a.json", '{"1": {"caption": "x"}}', f", key 1: captions {BAD_CAPTION}"),
        ("a.json", '{"annotations": {"1": "x"}}', f", key annotations: captions {BAD_CAPTION}"),
        ("a.json", r'{"\ud800\u001b\n": 5}', rf", key \ud800\x1b\n: captions {BAD_CAPTION}"),
        (
            "a.json",
            json.dumps({"9" * 10**6: None}),
            f", key {'9' * 100}...: captions {BAD_CAPTION}",
        ),
        ("a.jsonl", '\n{"id": 1, "caption": 5}', f", line 2: caption {BAD_CAPTION}"),
        # Missing and duplicate keys and columns.
        ("a.json", '[{"caption": "x"}]', ", entry 1: no image_id or image or filename"),
        ("a.json", '[{"image_id": 1}]', ", entry 1: no caption or captions or raw or sentence: it"),
        ("a.csv", "1,a dog\n2,a cat\n", ", line 2: no image_id or image"),
        ("a.csv", "image_id;caption\n1;a dog\n", ", line 2: no image_id or image"),
        ("a.csv", "image_id\n1\n", ", line 2: no caption or captions"),
        ("a.json", '{"1": "x", "2": "y", "1": "z"}', "duplicate key '1', keep one"),
        ("a.json", r'{"\ud800": "x", "\ud800": "y"}', r"duplicate key '\ud800', keep one"),
        (
            "a.jsonl",
            '{"id": 1, "id": 2, "raw": "x"}',
            "(line 1: duplicate key 'id', keep one",
        ),
        ("a.csv", "id,caption,caption\n1,x,y\n", "duplicate column 'caption', keep one"),
        # CSV with wrong commas and quotes.
        ("a.csv", "id,caption\n1,x\n2,a dog, a cat\n", "(line 3 has other columns than the header"),
        ("a.csv", "id,caption\n1\n", "(line 2 has other columns than the header: put captions"),
        (
            "a.csv",
            'id,caption\n1,x\n2,"a dog\n3,y',
            "unexpected end of data, in the row after line 2",
        ),
        ("a.csv", 'id,caption\n1,"a" dog\n', "expected after '\"', in the row after line 1"),
        (
            "a.csv",
            "id,caption\n1," + "x" * 200_000,
            "(131072), in the row after line 1; is a quote never closed?",
        ),
        ("a.csv", '"id', "unexpected end of data, in the row after line 0"),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_an_invalid_file_is_refused_with_the_location(
    tmp_path: Path, name: str, content: bytes | str, message: str
) -> None:
    assert message in file_error(write_file(tmp_path, name, content))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"other": [1]}, "row 1: no image_id"),
        ({"image_id": [1]}, "row 1: no caption"),
        ({"image_id": ["1", "2"], "caption": ["a", None]}, f"row 2: caption {BAD_CAPTION}"),
        ({"image_id": ["1", None], "caption": ["a", "b"]}, f"row 2: image_id is None: {BAD_ID}"),
        ({"image_id": [1, 2], "captions": [["a"], [None]]}, f"row 2: captions {BAD_CAPTION}"),
        ({"image_id": [1], "captions": [[["a"]]]}, f"row 1: captions {BAD_CAPTION}"),
        ({"image_id": [1.5], "caption": ["a"]}, f"row 1: image_id is 1.5: {BAD_ID}"),
        (
            {"image_id": [1.0, None], "caption": ["a", "b"]},
            f"row 2: image_id is None: {BAD_ID}",
        ),
        (
            {"image": [{"bytes": bytes(10**6)}], "caption": ["a"]},
            "(column image is struct<bytes: binary>, not text or numbers)",
        ),
        # A date that Python lacks, which pyarrow cannot convert.
        (
            {"image_id": pa.array([2**62], pa.timestamp("us")), "caption": ["a"]},
            "cannot be read (",
        ),
        ({"image_id": pa.array([1], pa.date32()), "caption": ["a"]}, "row 1: image_id is datetime"),
        ({"image_id": [b"1"], "caption": [b"a"]}, f"row 1: caption {BAD_CAPTION}"),
        (
            {"image_id": pa.array([], pa.string()), "caption": pa.array([], pa.string())},
            "contains no",
        ),
    ],
)
def test_invalid_parquet_values_are_refused_with_the_row(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    assert message in file_error(write_columns(tmp_path, **columns))


def test_parquet_whose_text_would_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few kilobytes on disk: one long caption that every row repeats, and a long list."""
    monkeypatch.setattr(caption_files, "_MAX_BYTES", 2**20)
    rows = 200
    repeated = pa.array(["x" * 10_000]).dictionary_encode().take(pa.array([0] * rows))
    path = write_columns(tmp_path, image_id=list(range(rows)), caption=repeated)
    assert path.stat().st_size < 20_000
    assert "it declares more text than any caption file has" in file_error(path)
    long_list = pa.array([[None] * 50_000], pa.list_(pa.string()))
    path = write_columns(tmp_path, image_id=["1"], captions=long_list)
    assert path.stat().st_size < 20_000
    assert "it declares more text than any caption file has" in file_error(path)


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "pipe.json"
    os.mkfifo(path)
    assert file_error(path) == " is a pipe or a device: save the captions in a file first"


def test_a_file_larger_than_any_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "sparse.csv"
    with path.open("wb") as file:
        file.truncate(2**40)
    assert file_error(path) == " is larger than 512 MiB: no caption file is"


def test_karpathys_splits_are_read_with_their_raw_sentences(tmp_path: Path) -> None:
    images = [
        {
            "filename": f"{photo}.jpg",
            "imgid": photo,
            "split": split,
            "sentences": [{"raw": f"A dog {n}.", "tokens": ["a", "dog"]} for n in range(2)],
        }
        for photo, split in enumerate(["train", "test"])
    ]
    path = write_file(tmp_path, "dataset_coco.json", json.dumps({"images": images}))
    captions = ["A dog 0.", "A dog 1."]
    assert read_captions(path) == {"0.jpg": captions, "1.jpg": captions}
    assert read_captions(path, split="test") == {"1.jpg": captions}
    images[1]["sentences"] = [{"tokens": ["a"]}]
    path = write_file(tmp_path, "dataset_coco.json", json.dumps({"images": images}))
    assert f", entry 2: captions {BAD_CAPTION}" in file_error(path)


def test_parquet_with_a_duplicate_column_or_invalid_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    columns = [pa.array(["1"]), pa.array(["a"]), pa.array(["b"])]
    pq.write_table(pa.Table.from_arrays(columns, ["image_id", "caption", "caption"]), path)
    assert "duplicate column 'caption', keep one" in file_error(path)
    ends = pa.py_buffer(b"\0\0\0\0\1\0\0\0")
    not_utf8 = pa.Array.from_buffers(pa.string(), 1, [None, ends, pa.py_buffer(b"\xff")])
    pq.write_table(pa.table({"image_id": ["1"], "caption": not_utf8}), path)
    assert " is not UTF-8" in file_error(path)


def test_parquet_with_any_byte_damaged_is_read_or_refused_in_one_line(
    tmp_path: Path,
) -> None:
    path = write_columns(tmp_path, image_id=["1", "2"], caption=["a dog", "a cat"])
    data = path.read_bytes()
    n_read, unexplained = 0, set()
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 21]) + data[position + 1 :])
        try:
            read_captions(path)
        except InputError as error:
            unexplained.add(" (None)" in str(error))
        else:
            n_read += 1
    assert unexplained == {False}
    assert 0 < n_read < len(data) * 3 / 4


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".parquet"])
def test_a_path_that_is_not_a_file_is_refused(tmp_path: Path, suffix: str) -> None:
    folder, loop, file = (tmp_path / f"{name}{suffix}" for name in ("folder", "loop", "file"))
    folder.mkdir()
    file.touch()
    loop.symlink_to(loop)
    message = " cannot be read ({}): give another file"
    assert file_error(folder) == message.format("Is a directory")
    assert file_error(loop) == message.format("Too many levels of symbolic links")
    assert file_error(file / f"x{suffix}") == message.format("Not a directory")
    assert file_error(Path("x" * 300 + suffix)) == message.format("File name too long")
    assert (
        file_error(tmp_path / f"absent{suffix}")
        == " does not exist: give the path of a caption file"
    )


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads every file")
def test_a_file_without_read_permission_is_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path, "a.json", "{}")
    path.chmod(0)
    assert file_error(path) == " cannot be read (Permission denied): give another file"


# Files with several splits or searches.


SEVERAL = {
    "a.csv": "image_id,split,search,caption\n1,test,greedy,x\n1,test,beam_3,y\n2,dev,beam_3,z\n",
    "a.jsonl": '{"id":1,"split":"test","search":"greedy","raw":"x"}\n'
    '{"id":1,"split":"test","search":"beam_3","raw":"y"}\n'
    '{"id":2,"split":"dev","search":"beam_3","raw":"z"}\n',
}


@pytest.mark.parametrize("name", SEVERAL)
def test_one_split_or_search_can_be_selected(tmp_path: Path, name: str) -> None:
    path = write_file(tmp_path, name, SEVERAL[name])
    assert read_captions(path) == {"1": ["x", "y"], "2": ["z"]}
    assert read_captions(path, split="test") == {"1": ["x", "y"]}
    assert read_captions(path, search="beam_3") == {"1": ["y"], "2": ["z"]}
    assert read_captions(path, search="beam_3", split="dev") == {"2": ["z"]}
    defaults = {"search": "beam_3"}
    assert read_captions(path, defaults, search=None) == {"1": ["y"], "2": ["z"]}
    assert read_captions(path, defaults, search="greedy") == {"1": ["x"]}


def test_an_absent_split_or_search_is_refused_with_the_present_ones(tmp_path: Path) -> None:
    path = write_file(tmp_path, "a.csv", SEVERAL["a.csv"])
    choices = "it has beam_3 and greedy"
    assert file_error(path, search="beam_5") == f" has no captions of search 'beam_5', {choices}"
    several = " has captions of several searches: choose one with --search: beam_3 or greedy"
    assert file_error(path, search=None) == several
    assert file_error(path, {"search": "beam_5"}, search=None) == several
    choices = "it has dev and test"
    assert (
        file_error(path, {"split": "val"}, split=None)
        == f" has no captions of split 'val', {choices}"
    )
    plain = write_file(tmp_path, "plain.json", '{"1": "x"}')
    assert file_error(plain, split="test") == " has no captions of split 'test', it has no split"


def test_a_default_split_is_ignored_where_a_file_has_no_splits(tmp_path: Path) -> None:
    path = write_file(tmp_path, "plain.json", '{"1": "x"}')
    assert read_captions(path, {"split": "test"}, split=None) == {"1": ["x"]}
