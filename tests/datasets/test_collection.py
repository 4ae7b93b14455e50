import pytest

from pipeline.datasets.annotations import Annotation, Annotations, Summary
from pipeline.datasets.collection import (
    RawCaption,
    collect_annotations,
    json_id,
    merge_split_lists,
)
from pipeline.datasets.photo_names import PhotoIndex

PHOTOS = PhotoIndex({"a.jpg", "b.jpg", "c.jpg"})
SPLITS = {"a.jpg": "train", "b.jpg": "test"}


def collect(*captions: tuple[str, int | None, object]) -> Annotations:
    raw_captions = [
        RawCaption(f"f:{line}", (name,) if name else (), number, caption)
        for line, (name, number, caption) in enumerate(captions, start=1)
    ]
    return collect_annotations(raw_captions, PHOTOS, SPLITS, Summary())


def test_rows_are_sorted_by_photo_and_numbered_in_file_order() -> None:
    annotations = collect(
        ("b.jpg", 9, "z"), ("a.jpg", 4, " y "), ("b.jpg", 2, ""), ("b.jpg", 1, "x")
    )
    assert annotations.rows == [
        Annotation("a.jpg", 0, "y", "train"),
        Annotation("b.jpg", 0, "z", "test"),
        Annotation("b.jpg", 1, "x", "test"),
    ]
    assert annotations.summary.captions_read == 4
    assert annotations.summary.captions_kept == 3
    assert annotations.summary.photos_without_captions == 1


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
def test_unusable_captions_are_dropped_and_counted(name: str, caption: object, reason: str) -> None:
    summary = collect((name, 0, caption)).summary
    assert summary.dropped == {reason: 1}
    assert summary.captions_kept == 0
    assert summary.examples[reason][0].startswith("f:1: ")


def test_photos_of_dropped_captions_are_counted() -> None:
    summary = collect(("z.jpg", 0, "x"), ("z.jpg", 1, "y"), ("c.jpg", 0, "x")).summary
    assert summary.photos_not_there == 1
    assert summary.photos_in_no_split == 1
    assert summary.photos_without_captions == 2


def test_a_stray_suffix_is_repaired_if_the_photo_exists() -> None:
    annotations = collect(("a.jpg.1", 0, "x"), ("z.jpg.1", 0, "x"))
    assert [row.image_id for row in annotations.rows] == ["a.jpg"]
    assert annotations.summary.repaired == {"stray_suffix": 1}
    assert annotations.summary.dropped == {"photo_not_there": 1}
    assert annotations.summary.noted == {"stray_suffix_not_there": 1}


def test_repeated_rows_are_dropped_and_agreeing_annotators_kept() -> None:
    annotations = collect(
        ("a.jpg", 0, "x"),
        ("a.jpg", 0, "x"),
        ("a.jpg", 0, "y"),
        ("a.jpg", 1, "x"),
        ("b.jpg", 0, "x"),
    )
    assert [row.raw for row in annotations.rows] == ["x", "y", "x", "x"]
    assert annotations.summary.dropped == {"repeated_row": 1}
    assert annotations.summary.noted == {"reused_number": 1, "same_wording": 1}


def test_equal_rows_without_numbers_are_all_kept() -> None:
    annotations = collect(("a.jpg", None, "x"), ("a.jpg", None, "x"))
    assert len(annotations.rows) == 2
    assert annotations.summary.noted == {"same_wording": 1}


def test_characters_that_no_file_can_store_are_replaced() -> None:
    annotations = collect(("a.jpg", 0, "a\0b"), ("a.jpg", 1, "c\ud83dd"), ("a.jpg", 2, "naïve 😀"))
    assert [row.raw for row in annotations.rows] == ["a b", "c\ufffdd", "naïve 😀"]
    assert annotations.summary.repaired == {"nul_characters": 1, "lone_surrogates": 1}
    assert annotations.summary.noted == {"non_ascii": 2}


def test_a_value_nested_too_deep_for_repr_is_counted() -> None:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    assert collect(("a.jpg", 0, nested)).summary.dropped == {"wrong_type": 1}


def test_a_json_id_is_a_number_or_a_string() -> None:
    assert json_id({"id": 3}, "id") == 3
    assert json_id({"id": "x"}, "id") == "x"
    entries: list[object] = [{"id": True}, {"id": None}, {"id": [1]}, {"id": 1.5}, {}, [], None]
    for entry in entries:
        assert json_id(entry, "id") is None


def test_a_photo_in_several_lists_is_not_used_for_training() -> None:
    summary = Summary()
    lists = {"train": ["a", "b", "c", "a"], "dev": ["b", "c"], "test": ["c"]}
    splits = merge_split_lists(lists, "lists", summary)
    assert splits == {"a": "train", "b": "dev", "c": "test"}
    assert summary.photos_in_two_splits == 2
    assert summary.noted == {"photo_in_two_splits": 2}
