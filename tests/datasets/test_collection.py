import pytest

from pipeline.datasets.annotations import Annotation, Annotations, Summary
from pipeline.datasets.collection import Record, collect, identity

PHOTOS = {"a.jpg", "b.jpg", "c.jpg"}
SPLITS = {"a.jpg": "train", "b.jpg": "test"}


def collected(*records: tuple[str, int | None, object]) -> Annotations:
    rows = [
        Record(f"f:{line}", (name,) if name else (), number, caption)
        for line, (name, number, caption) in enumerate(records, start=1)
    ]
    return collect(rows, PHOTOS, SPLITS, Summary())


def test_rows_are_sorted_by_photo_and_numbered_in_file_order() -> None:
    found = collected(("b.jpg", 9, "z"), ("a.jpg", 4, " y "), ("b.jpg", 2, ""), ("b.jpg", 1, "x"))
    assert found.rows == [
        Annotation("a.jpg", 0, "y", "train"),
        Annotation("b.jpg", 0, "z", "test"),
        Annotation("b.jpg", 1, "x", "test"),
    ]
    assert found.summary.captions_read == 4
    assert found.summary.captions_kept == 3
    assert found.summary.photos_without_captions == 1


@pytest.mark.parametrize(
    ("name", "caption", "reason"),
    [
        ("", "x", "malformed"),
        ("../a.jpg", "x", "unsafe_name"),
        ("z.jpg", "x", "photo_not_there"),
        ("c.jpg", "x", "photo_in_no_split"),
        ("a.jpg", None, "wrong_type"),
        ("a.jpg", 3, "wrong_type"),
        ("a.jpg", " \t", "empty_caption"),
        ("a.jpg", "\0", "empty_caption"),
    ],
)
def test_what_cannot_be_used_is_dropped_and_counted(
    name: str, caption: object, reason: str
) -> None:
    summary = collected((name, 0, caption)).summary
    assert summary.dropped == {reason: 1}
    assert summary.captions_kept == 0
    assert summary.examples[reason][0].startswith("f:1: ")


def test_photos_are_counted_where_captions_are_dropped() -> None:
    summary = collected(("z.jpg", 0, "x"), ("z.jpg", 1, "y"), ("c.jpg", 0, "x")).summary
    assert summary.photos_not_there == 1
    assert summary.photos_in_no_split == 1
    assert summary.photos_without_captions == 2


def test_a_stray_suffix_is_mended_where_the_photo_is_there() -> None:
    found = collected(("a.jpg.1", 0, "x"), ("z.jpg.1", 0, "x"))
    assert [row.image_id for row in found.rows] == ["a.jpg"]
    assert found.summary.repaired == {"stray_suffix": 1}
    assert found.summary.dropped == {"photo_not_there": 1}
    assert found.summary.noted == {"stray_suffix_not_there": 1}


def test_repeated_rows_reused_numbers_and_annotators_who_agree() -> None:
    found = collected(
        ("a.jpg", 0, "x"),
        ("a.jpg", 0, "x"),
        ("a.jpg", 0, "y"),
        ("a.jpg", 1, "x"),
        ("b.jpg", 0, "x"),
    )
    assert [row.raw for row in found.rows] == ["x", "y", "x", "x"]
    assert found.summary.dropped == {"repeated_row": 1}
    assert found.summary.noted == {"reused_number": 1, "same_wording": 1}


def test_equal_rows_without_numbers_are_annotators_who_agree() -> None:
    found = collected(("a.jpg", None, "x"), ("a.jpg", None, "x"))
    assert len(found.rows) == 2
    assert found.summary.noted == {"same_wording": 1}


def test_characters_no_file_can_hold_are_replaced() -> None:
    found = collected(("a.jpg", 0, "a\0b"), ("a.jpg", 1, "c\ud83dd"), ("a.jpg", 2, "naïve 😀"))
    assert [row.raw for row in found.rows] == ["a b", "c\ufffdd", "naïve 😀"]
    assert found.summary.repaired == {"nul_characters": 1, "lone_surrogates": 1}
    assert found.summary.noted == {"non_ascii": 2}


def test_a_value_nested_beyond_repr_is_counted() -> None:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    assert collected(("a.jpg", 0, nested)).summary.dropped == {"wrong_type": 1}


def test_identity_takes_numbers_and_strings_only() -> None:
    assert identity({"id": 3}, "id") == 3
    assert identity({"id": "x"}, "id") == "x"
    others: list[object] = [{"id": True}, {"id": None}, {"id": [1]}, {"id": 1.5}, {}, [], None]
    for entry in others:
        assert identity(entry, "id") is None
