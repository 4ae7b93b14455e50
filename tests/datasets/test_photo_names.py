import time

import pytest

from pipeline.datasets.photo_names import Match, PhotoIndex


def match(name: str, *photos: str, others: tuple[str, ...] = ()) -> Match:
    return PhotoIndex(photos, others).match_all([(name,)])[(name,)]


@pytest.mark.parametrize(
    ("name", "photo"),
    [
        ("a.jpg", "a.JPG"),
        ("A.JPG", "a.jpg"),
        ("IMG_a.jpg", "img_A.jpg"),
        ("a.jpeg", "a.jpg"),
        ("a.JPG", "a.jpeg"),
        ("a.jfif", "a.jpg"),
        ("a", "a.jpg"),
        ("a.jpg", "a"),
        ("a.png", "a.jpg"),
        ("images/a.jpg", "a.jpg"),
        ("Images/x/a.jpg", "x/a.jpg"),
        ("flickr30k-images/a.jpg", "a.jpg"),
        ("data/mine/images/a.jpg", "a.jpg"),
        ("./images//a.jpg", "a.jpg"),
        ("x\\a.jpg", "x/a.jpg"),
        (".\\images\\a.jpg", "a.jpg"),
        ("C:\\Users\\me\\images\\a.jpg", "a.jpg"),
        ("C:\\photos\\x\\a.jpg", "x/a.jpg"),
        ("\\\\server\\share\\a.jpg", "a.jpg"),
        ("/home/me/images/x/a.JPG", "x/a.jpg"),
        ("file:///home/me/a.jpg", "a.jpg"),
        ("https://example.org/photos/a.jpg?w=640", "a.jpg"),
        ("a%20b.jpg", "a b.jpg"),
        ("a b.jpg", "a%20b.jpg"),
        ("caf%C3%A9.jpg", "cafe\u0301.jpg"),
        ("a.jpg", "x/y/a.jpg"),
        ("y/a.jpg", "x/y/a.jpg"),
        ("a.jpg", "images/a.jpg"),
        ("a", "x/a.webp"),
        (" a.jpg ", "a.jpg"),
    ],
)
def test_a_name_that_misses_by_a_little_is_matched(name: str, photo: str) -> None:
    assert match(name, "other.jpg", photo) == Match(photo, repair="photo_name")


@pytest.mark.parametrize(
    ("name", "photos"),
    [
        ("a", ("a.jpg", "a.png")),
        ("a.webp", ("a.jpg", "a.png")),
        ("a.JPG", ("A.jpg", "a.jpg")),
        ("a.JPG", ("a.jpg", "a.jpeg")),
        ("a.jpg", ("x/a.jpg", "y/a.jpg")),
        ("images/x/a.jpg", ("a.jpg", "y/x/a.jpg")),
        ("b/x/a.jpg", ("a.jpg", "x/a.jpg")),
    ],
)
def test_a_name_that_fits_two_photos_is_never_guessed(name: str, photos: tuple[str, ...]) -> None:
    assert match(name, *photos) == Match(None, reason="photo_name_ambiguous")


def test_an_exact_name_wins_over_all_similar_ones() -> None:
    photos = ("a.jpg", "A.jpg", "a.png", "x/a.jpg", "images/a.jpg", "a")
    for photo in photos:
        assert match(photo, *photos) == Match(photo)


def test_two_names_for_one_photo_are_never_guessed() -> None:
    names = [("dog/1.jpg",), ("cat/1.jpg",)]
    assert PhotoIndex(["1.jpg"]).match_all(names) == dict.fromkeys(
        names, Match(None, reason="photo_name_ambiguous")
    )


def test_a_photo_that_another_name_means_is_not_taken() -> None:
    names = [("1.jpg",), ("dog/1.jpg",), ("1.png",)]
    matches = PhotoIndex(["1.jpg"]).match_all(names)
    assert matches[names[0]] == Match("1.jpg")
    assert {matches[name].reason for name in names[1:]} == {"photo_not_there"}


def test_two_spellings_of_one_name_mean_the_same_photo() -> None:
    names = [("a.jpg",), ("A.JPG",), ("images/a.jpeg",)]
    matches = PhotoIndex(["a.jpg"]).match_all(names)
    assert [matches[name].image_id for name in names] == ["a.jpg"] * 3


@pytest.mark.parametrize("name", ["dog/1.jpg", "b.jpg", "1.jpg.bak", "11.jpg", "/", "..", ".", "%"])
def test_other_names_are_not_matched(name: str) -> None:
    assert match(name, "cat/1.jpg").image_id is None


@pytest.mark.parametrize(
    "name", ["../a.jpg", "x/../a.jpg", "..\\a.jpg", "/x/../a.jpg", "a\0.jpg", "a\ud800.jpg", ""]
)
def test_a_name_that_leads_out_of_the_folder_is_not_matched(name: str) -> None:
    assert match(name, "a.jpg") == Match(None, reason="unsafe_name")


def test_a_percent_escape_does_not_lead_out_of_the_folder() -> None:
    assert match("%2e%2e/a.jpg", "a.jpg") == Match(None, reason="photo_not_there")


@pytest.mark.parametrize("name", ["a.heic", "a.jpg", "A.HEIC", "images/a.jpg", "/x/images/a.jpg"])
def test_a_file_of_another_type_has_a_reason_of_its_own(name: str) -> None:
    assert match(name, "b.jpg", others=("a.heic",)) == Match(None, reason="photo_of_other_type")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("dog_03.jpg", "dog_30.jpg"),
        ("000042.jpg", "COCO_000042.jpg"),
        ("HOUSE.JPG", "house1.jpg"),
        ("../dog_1.jpg", "COCO_000042.jpg"),
    ],
)
def test_the_nearest_photo_is_named(name: str, nearest: str) -> None:
    photos = ("COCO_000042.jpg", "house1.jpg", "dog_30.jpg", "x.jpg")
    assert PhotoIndex(photos).nearest(name) in ({nearest} if ".." not in name else set(photos))


def test_nothing_is_nearest_without_photos() -> None:
    assert PhotoIndex([]).nearest("a.jpg") is None


def test_matching_takes_linear_time() -> None:
    def seconds(count: int) -> float:
        photos = [f"{number}/same/001.jpg" for number in range(count)]
        names = [(f"x{number}/001.jpg",) for number in range(count)]
        start = time.process_time()
        PhotoIndex(photos).match_all(names)
        return time.process_time() - start

    assert seconds(8000) < 10 * seconds(2000) + 0.2


def test_a_hostile_name_takes_no_time() -> None:
    index = PhotoIndex(["a.jpg"], ["b.heic"])
    start = time.process_time()
    for name in ("/" * 10**6, "a/" * 500_000 + "b", "%2f" * 300_000, "." * 10**6, "a" * 10**6):
        assert index.match_all([(name,)])[(name,)].image_id is None
        index.nearest(name)
    assert time.process_time() - start < 5
