import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.files import fingerprint
from pipeline.stages import tokenize
from pipeline.text.vocabulary import END, PAD, SPECIAL_TOKENS, START, UNK, Vocabulary
from tests.support.captioner import write_captions, write_params

TEXTS = ["a dog runs", "a dog sits", "a cat sits", "zebra"]


def build(min_count: int = 1) -> Vocabulary:
    return Vocabulary.build(TEXTS, min_count, "fingerprint of the captions")


def test_ids_are_ordered_by_frequency_then_alphabet() -> None:
    vocabulary = build()
    assert vocabulary.words == ("a", "dog", "sits", "cat", "runs", "zebra")
    assert vocabulary.counts == (3, 2, 2, 1, 1, 1)
    assert vocabulary.ids == {"a": 4, "dog": 5, "sits": 6, "cat": 7, "runs": 8, "zebra": 9}
    assert len(vocabulary) == 10


def test_the_order_of_the_captions_does_not_matter() -> None:
    assert Vocabulary.build(TEXTS[::-1], 1, "fingerprint of the captions") == build()


def test_special_tokens_have_the_first_four_ids_and_are_never_words() -> None:
    assert (PAD, START, END, UNK) == (0, 1, 2, 3)
    assert SPECIAL_TOKENS == ("<pad>", "<start>", "<end>", "<unk>")
    vocabulary = build()
    assert vocabulary.encode("<pad> <start> <end> <unk>") == [UNK] * 4
    assert vocabulary.decode([START, 4, UNK, 5, END, PAD]) == "a dog"


def test_start_and_end_are_ordinary_words() -> None:
    vocabulary = Vocabulary.build(["start end pad unk"], 1, "")
    ids = vocabulary.encode("start end pad unk")
    assert sorted(ids) == [4, 5, 6, 7]
    assert vocabulary.decode(ids) == "start end pad unk"


def test_words_rarer_than_min_count_are_unknown_and_counted() -> None:
    vocabulary = build(min_count=2)
    assert vocabulary.words == ("a", "dog", "sits")
    assert vocabulary.unknown_count == 3
    assert build().unknown_count == 0
    assert vocabulary.encode("a zebra sits") == [4, UNK, 6]


def test_the_fingerprint_depends_on_the_words_and_their_order() -> None:
    same_words = Vocabulary(build().words, (9,) * 6, 5, "other captions")
    assert same_words.fingerprint == build().fingerprint
    reversed_words = Vocabulary(build().words[::-1], build().counts, 0, "")
    assert reversed_words.fingerprint != build().fingerprint


@given(st.lists(st.text(), max_size=8))
def test_known_words_survive_encoding_and_decoding(texts: list[str]) -> None:
    vocabulary = Vocabulary.build(texts, 1, "")
    for text in texts:
        ids = vocabulary.encode(text)
        assert all(index >= len(SPECIAL_TOKENS) for index in ids)
        assert vocabulary.decode(ids) == " ".join(text.split())


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.text(), max_size=8), min_count=st.integers(1, 3))
def test_a_vocabulary_survives_saving_and_loading(
    texts: list[str], min_count: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "vocabulary.json"
    vocabulary = Vocabulary.build(texts, min_count, "captions")
    vocabulary.save(path)
    assert Vocabulary.load(path) == vocabulary


def test_equal_vocabularies_give_equal_bytes(tmp_path: Path) -> None:
    build().save(tmp_path / "1.json")
    Vocabulary.build(TEXTS[::-1], 1, "fingerprint of the captions").save(tmp_path / "2.json")
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()


def test_the_error_for_a_missing_file_names_it_and_the_fix(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"vocabulary\.json is not there: run `dvc repro tokenize`"
    ):
        Vocabulary.load(tmp_path / "vocabulary.json")


LONE_SURROGATE = "\ud800"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"format_version": 2}, "another format version"),
        ({"format_version": None}, "another format version"),
        ({"markers": ["<pad>", "<end>", "<start>", "<unk>"]}, "another format version"),
        ({"markers": None}, "another format version"),
        ({"words": ["a", "dogs", "sits", "cat", "runs", "zebra"]}, "fingerprint"),
        ({"words": ["dog", "a", "sits", "cat", "runs", "zebra"]}, "fingerprint"),
        ({"words": ["a"]}, "fingerprint"),
        ({"fingerprint": None}, "fingerprint"),
        ({"words": None}, "damaged"),
        ({"words": [LONE_SURROGATE]}, "cannot be read as JSON"),
        ({"counts": ["many"]}, "damaged"),
        ({"counts": 3}, "damaged"),
        ({"counts": [float("inf")]}, "damaged"),
        ({"counts": [float("nan")]}, "damaged"),
        ({"unknown": None}, "damaged"),
        ({"unknown": {}}, "damaged"),
    ],
)
def test_a_file_that_is_not_a_vocabulary_of_this_version_is_rejected(
    tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    path = tmp_path / "vocabulary.json"
    build().save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(
        InputError, match=rf"vocabulary\.json .*{problem}.*: run `dvc repro tokenize`"
    ):
        Vocabulary.load(path)


@pytest.mark.parametrize("key", ["words", "counts", "unknown", "captions"])
def test_a_missing_key_is_rejected(tmp_path: Path, key: str) -> None:
    path = tmp_path / "vocabulary.json"
    build().save(path)
    values = json.loads(path.read_text())
    del values[key]
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match=rf"{key}.*dvc repro tokenize"):
        Vocabulary.load(path)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b'{"a": ', b"\xff", b"[" * 100_000, b'{"format_version": ' + b"1" * 5000 + b"}"],
    ids=["empty", "list", "cut off", "not UTF-8", "deeply nested", "endless number"],
)
def test_a_file_that_is_not_a_json_object_is_rejected(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "vocabulary.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"vocabulary\.json .*: run `dvc repro tokenize`"):
        Vocabulary.load(path)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_rejected_or_has_the_same_words(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    build().save(path)
    intact = path.read_bytes()
    position = data.draw(st.integers(0, len(intact) - 1))
    value = data.draw(st.integers(0, 255))
    path.write_bytes(intact[:position] + bytes([value]) + intact[position + 1 :])
    try:
        vocabulary = Vocabulary.load(path)
    except InputError as error:
        assert "dvc repro tokenize" in str(error)  # noqa: PT017
    else:
        assert vocabulary.words == build().words


def write_table(tmp_path: Path) -> Path:
    path = tmp_path / "artifacts" / "captions.parquet"
    captions = {
        "train": [("1.jpg", "a dog"), ("1.jpg", "a cat"), ("2.jpg", "a dog")],
        "dev": [("3.jpg", "a dev dev dev")],
        "test": [("4.jpg", "test test test")],
    }
    write_captions(path, captions)
    return path


def test_the_stage_uses_the_training_split_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path, tokenize={"min_count": 2})
    write_table(tmp_path)
    tokenize.main()
    vocabulary = Vocabulary.load(Path("artifacts/vocabulary.json"))
    assert vocabulary.words == ("a", "dog")
    assert vocabulary.counts == (3, 2)
    assert vocabulary.unknown_count == 1
    output = capsys.readouterr().out
    assert "2 words occur 2 times or more" in output
    assert "16.7% of the text" in output


def test_the_vocabulary_has_the_fingerprint_of_its_captions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path, tokenize={"min_count": 1})
    path = write_table(tmp_path)
    tokenize.main()
    first = Vocabulary.load(Path("artifacts/vocabulary.json"))
    write_captions(path, {"train": [("1.jpg", "a dog"), ("2.jpg", "a cat"), ("3.jpg", "a dog")]})
    tokenize.main()
    second = Vocabulary.load(Path("artifacts/vocabulary.json"))
    assert second.words == first.words
    assert second.captions_fingerprint != first.captions_fingerprint
    assert first.fingerprint == fingerprint(["a", "dog", "cat"])


def test_the_stage_rejects_a_min_count_that_leaves_no_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path, tokenize={"min_count": 4})
    write_table(tmp_path)
    with pytest.raises(InputError, match=r"params\.yaml.*tokenize\.min_count 4.*lower it"):
        tokenize.main()
    assert not Path("artifacts/vocabulary.json").exists()
