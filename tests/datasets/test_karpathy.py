import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.datasets.annotations import Annotations
from pipeline.datasets.formats import photos, read
from pipeline.errors import InputError


def image(name: object, split: object = "train", *raws: object, **more: object) -> dict[str, Any]:
    sentences = [{"raw": raw, "sentid": n} for n, raw in enumerate(raws or ("A dog .",))]
    return {"filename": name, "split": split, "sentences": sentences, **more}


def lay(root: Path, images: object, *paths: str, name: str = "dataset_flickr8k.json") -> Path:
    (root / name).write_text(json.dumps({"images": images, "dataset": "x"}))
    for path in paths or ("images/a.jpg", "images/b.jpg", "images/c.jpg"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def loaded(root: Path) -> Annotations:
    return read("karpathy", root, split_seed=1, dev_share=0.1, test_share=0.1)


def test_captions_and_splits_are_read(tmp_path: Path) -> None:
    images = [image("a.jpg", "restval", "x", "y"), image("b.jpg", "val"), image("c.jpg", "test")]
    found = loaded(lay(tmp_path, images))
    rows = [(row.image_id, row.caption_index, row.raw, row.split) for row in found.rows]
    assert rows == [
        ("a.jpg", 0, "x", "train"),
        ("a.jpg", 1, "y", "train"),
        ("b.jpg", 0, "A dog .", "dev"),
        ("c.jpg", 0, "A dog .", "test"),
    ]


@pytest.mark.parametrize("above", ["", "images/"])
def test_photos_in_folders_keep_the_folder_in_their_id(tmp_path: Path, above: str) -> None:
    images = [
        image("a.jpg", "train", filepath="train2014"),
        image("a.jpg", "test", filepath="val2014"),
    ]
    root = lay(tmp_path, images, f"{above}train2014/a.jpg", f"{above}val2014/a.jpg")
    found = loaded(root)
    assert [row.image_id for row in found.rows] == ["train2014/a.jpg", "val2014/a.jpg"]
    assert list(photos("karpathy", root)) == ["train2014/a.jpg", "val2014/a.jpg"]


def test_a_flat_photo_folder_does_with_filepath_too(tmp_path: Path) -> None:
    found = loaded(lay(tmp_path, [image("a.jpg", filepath="train2014")], "images/a.jpg"))
    assert [row.image_id for row in found.rows] == ["a.jpg"]


def test_photos_beside_and_inside_the_photo_folder(tmp_path: Path) -> None:
    paths = ("images/train2014/a.jpg", "train2014/a.jpg", "images/b.jpg", "Images2/c.jpg")
    found = photos("karpathy", lay(tmp_path, [], *paths))
    assert list(found) == ["Images2/c.jpg", "b.jpg", "train2014/a.jpg"]
    assert found["train2014/a.jpg"] == tmp_path / "train2014" / "a.jpg"


def test_wrong_types_are_counted(tmp_path: Path) -> None:
    images = [
        image("a.jpg"),
        "no object",
        {"filename": "b.jpg", "split": "train", "sentences": None},
        image(None),
        image("b.jpg", "train", None, 7, ["x"]),
        {**image("b.jpg"), "sentences": ["bare", {}]},
        image("c.jpg", "holdout"),
        image("c.jpg", ["val"]),
        image("../a.jpg"),
        image("z.jpg"),
    ]
    summary = loaded(lay(tmp_path, images)).summary
    assert summary.dropped == {
        "malformed": 3,
        "wrong_type": 4,
        "photo_in_no_split": 2,
        "unsafe_name": 1,
        "photo_not_there": 1,
    }
    assert summary.captions_kept == 2
    assert summary.noted == {"unknown_split": 2}
    assert summary.examples["malformed"][0].startswith("dataset_flickr8k.json: images[1]: ")


def test_a_photo_in_two_splits_is_no_training_photo(tmp_path: Path) -> None:
    images = [image("a.jpg"), image("b.jpg", "train", "x"), image("b.jpg", "val", "y")]
    summary = loaded(lay(tmp_path, images)).summary
    assert summary.photos_per_split == {"train": 1, "dev": 1, "test": 0}
    assert summary.photos_in_two_splits == 1


@pytest.mark.parametrize("images", [None, {}, "x", 3])
def test_without_a_list_of_images_it_is_another_form(tmp_path: Path, images: object) -> None:
    with pytest.raises(InputError, match=r"dataset_flickr8k\.json: key images holds no list"):
        loaded(lay(tmp_path, images))


def test_wrong_json_is_named_with_its_place(tmp_path: Path) -> None:
    root = lay(tmp_path, [])
    (root / "dataset_flickr8k.json").write_text('{"images": [}')
    with pytest.raises(InputError, match="line 1, column 13"):
        loaded(root)


def test_two_files_are_one_too_many(tmp_path: Path) -> None:
    lay(tmp_path, [image("a.jpg")])
    root = lay(tmp_path, [image("a.jpg")], name="dataset_coco.json")
    with pytest.raises(InputError, match=r"dataset_coco\.json, dataset_flickr8k\.json: keep the"):
        loaded(root)
