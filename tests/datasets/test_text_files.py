import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.datasets.annotations import Summary
from pipeline.datasets.text_files import read_json_object, read_lines
from pipeline.errors import InputError


@pytest.mark.parametrize(
    ("data", "lines", "repaired"),
    [
        ("é\nb".encode(), ["é", "b"], {}),
        (b"\xef\xbb\xbfa\nb", ["a", "b"], {"byte_order_mark": 1}),
        ("é\nb".encode("utf-16"), ["é", "b"], {"byte_order_mark": 1}),
        ("\ufeffé\nb".encode("utf-16-be"), ["é", "b"], {"byte_order_mark": 1}),
        (b"\xff\xfea\0\n\0\x00\xd8", ["a", "\ufffd"], {"byte_order_mark": 1, "broken_utf16": 1}),
        (b"a\r\nb\r\nc", ["a", "b", "c"], {"crlf_line_ends": 2}),
        (b"a\rb\rc\n", ["a", "b", "c", ""], {"lone_cr_line_ends": 2}),
        ("a\u2028b\x85c\x0bd".encode(), ["a\u2028b\x85c\x0bd"], {}),
        ("é".encode() + b"\ncaf\xe9 \x93ok\x94", ["é", "café “ok”"], {"not_utf8": 1}),
        (b"\x81\xe9", ["\x81é"], {"not_utf8": 1}),
    ],
)
def test_encodings_and_line_ends_are_recognised(
    tmp_path: Path, data: bytes, lines: list[str], repaired: dict[str, int]
) -> None:
    path = tmp_path / "captions.txt"
    path.write_bytes(data)
    summary = Summary()
    assert read_lines(path, summary) == lines
    assert summary.repaired == repaired


def test_a_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "captions.txt"
    path.write_bytes(b"a\r\nb\r\n\xe9")
    summary = Summary()
    read_lines(path, summary)
    assert summary.examples["not_utf8"] == ["captions.txt:3: 'é'"]


@given(data=st.binary(max_size=60))
def test_any_bytes_become_lines_or_are_in_another_encoding(
    data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(data)
    try:
        lines = read_lines(path, Summary())
    except InputError as error:
        assert "is not UTF-8" in str(error)  # noqa: PT017
    else:
        assert not any("\n" in line or "\r" in line for line in lines)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('{\n "a": }', "line 2, column 7"),
        ("[1]", "line 1: not a JSON object"),
        ("", "line 1, column 1"),
        ("[" * 100_000, "cannot be read as JSON"),
        ('{"a": ' + "1" * 5000 + "}", "cannot be read as JSON"),
    ],
)
def test_the_error_for_invalid_json_has_position_and_fix(
    tmp_path: Path, data: str, message: str
) -> None:
    path = tmp_path / "a.json"
    path.write_text(data)
    with pytest.raises(InputError, match=message) as caught:
        read_json_object(path, "do this", Summary())
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith("do this")


def test_json_is_read_in_any_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes('{"a": "é"}'.encode("utf-16"))
    assert read_json_object(path, "", Summary()) == {"a": "é"}


def test_one_bad_byte_leaves_the_other_accents_of_a_line_of_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes('{"a": "é ü 犬 '.encode() + b"caf\xe9" + ' ñ é"}'.encode())
    summary = Summary()
    assert read_json_object(path, "", summary) == {"a": "é ü 犬 café ñ é"}
    assert summary.repaired == {"not_utf8": 1}


def test_a_file_in_another_encoding_is_refused_with_examples(tmp_path: Path) -> None:
    path = tmp_path / "captions.txt"
    path.write_bytes(("Собака бежит по траве\n" * 5).encode("cp1251"))
    with pytest.raises(InputError, match=r"captions\.txt is not UTF-8.*CP1251 \('Собака") as caught:
        read_lines(path, Summary())
    assert "iconv -f CP1251 -t UTF-8" in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "utf-32"])
def test_wide_encodings_are_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "captions.txt"
    path.write_bytes("image,caption\na.jpg,é".encode(encoding))
    summary = Summary()
    assert read_lines(path, summary) == ["image,caption", "a.jpg,é"]
    reason = "byte_order_mark" if encoding == "utf-32" else "no_byte_order_mark"
    assert summary.repaired == {reason: 1}


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "captions.txt")
    with pytest.raises(InputError, match=r"captions\.txt is a pipe or a device"):
        read_lines(tmp_path / "captions.txt", Summary())
