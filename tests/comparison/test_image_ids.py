import pytest

from pipeline.comparison.caption_files import Captions
from pipeline.comparison.image_ids import short_id, unify_ids


def captions(*image_ids: str) -> Captions:
    return {image_id: [f"of {image_id}"] for image_id in image_ids}


@pytest.mark.parametrize(
    ("image_id", "short"),
    [
        ("42", "42"),
        ("COCO_val2014_000000000042.jpg", "42"),
        ("val2017/000000000042.JPG", "42"),
        ("000000000042", "42"),
        ("0042.jpg", "0042"),  # other numbers keep their zeros
        ("photos/a dog.v2.jpeg", "a dog.v2"),
        ("C:\\\\photos\\\\cat.png", "cat"),
        ("2.5", "2.5"),
        ("notes.txt", "notes.txt"),
    ],
)
def test_folder_suffix_and_the_prefix_of_coco_are_left_out(image_id: str, short: str) -> None:
    assert short_id(image_id) == short


def test_photos_named_differently_get_the_ids_of_the_references() -> None:
    references = captions("COCO_val2014_000000000042.jpg", "COCO_val2014_000000000007.jpg")
    by_number, by_path, unified = unify_ids(
        [captions("7", "42", "99"), captions("x/000000000042.jpg", "7.jpg"), references]
    )
    assert by_number == {
        "COCO_val2014_000000000007.jpg": ["of 7"],
        "COCO_val2014_000000000042.jpg": ["of 42"],
        "99": ["of 99"],
    }
    assert set(by_path) == set(references)
    assert unified == references


@pytest.mark.parametrize(
    "files",
    [
        [captions("a.jpg", "b"), captions("a.jpg", "b")],
        # Two photos of one file would get the same id.
        [captions("a", "b"), captions("x/a.jpg", "y/a.jpg", "b.jpg")],
        [captions("a.jpg"), captions("b.jpg")],
    ],
    ids=["equal", "ambiguous", "different"],
)
def test_ids_stay_where_other_ones_are_no_clear_gain(files: list[Captions]) -> None:
    assert unify_ids(files) == files
