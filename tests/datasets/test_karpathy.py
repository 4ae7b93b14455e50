import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.datasets.annotations import Annotations
from pipeline.datasets.formats import find_photos, read_annotations
from pipeline.errors import InputError


def image(name: object, split: object = "train", *raws: object, **more: object) -> dict[str, Any]:
    sentences = [{"raw": raw, "sentid": n} for n, raw in enumerate(raws or ("A dog .",))]
    return {"filename": name, "split": split, "sentences": sentences, **more}


def write_dataset(
    root: Path, images: object, *paths: str, name: str = "dataset_flickr8k.json"
) -> Path:
    (root / name).write_text(json.dumps({"images": images, "dataset": "x"}))
    for path in paths or ("images/a.jpg", "images/b.jpg", "images/c.jpg"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def load(root: Path) -> Annotations:
    return read_annotations("karpathy", root, split_seed=1, dev_share=0.1, test_share=0.1)


def test_captions_and_splits_are_read(tmp_path: Path) -> None:
    images = [image("a.jpg", "restval", "x", "y"), image("b.jpg", "val"), image("c.jpg", "test")]
    annotations = load(write_dataset(tmp_path, images))
    rows = [(row.image_id, row.caption_index, row.raw, row.split) for row in annotations.rows]
    assert rows == [
        ("a.jpg", 0, "x", "train"),
        ("a.jpg", 1, "y", "train"),
        ("b.jpg", 0, "A dog .", "dev"),
        ("c.jpg", 0, "A dog .", "test"),
    ]


@pytest.mark.parametrize("parent", ["", "images/"])
def test_photos_in_a_subfolder_have_it_in_their_image_id(tmp_path: Path, parent: str) -> None:
    images = [
        image("a.jpg", "train", filepath="train2014"),
        image("a.jpg", "test", filepath="val2014"),
    ]
    root = write_dataset(tmp_path, images, f"{parent}train2014/a.jpg", f"{parent}val2014/a.jpg")
    annotations = load(root)
    assert [row.image_id for row in annotations.rows] == ["train2014/a.jpg", "val2014/a.jpg"]
    assert list(find_photos("karpathy", root)) == ["train2014/a.jpg", "val2014/a.jpg"]


def test_a_filepath_may_be_missing_from_the_photo_folder(tmp_path: Path) -> None:
    annotations = load(
        write_dataset(tmp_path, [image("a.jpg", filepath="train2014")], "images/a.jpg")
    )
    assert [row.image_id for row in annotations.rows] == ["a.jpg"]


def test_photos_inside_and_outside_the_photo_folder_are_found(tmp_path: Path) -> None:
    paths = ("images/train2014/a.jpg", "train2014/a.jpg", "images/b.jpg", "Images2/c.jpg")
    photos = find_photos("karpathy", write_dataset(tmp_path, [], *paths))
    assert list(photos) == ["Images2/c.jpg", "b.jpg", "train2014/a.jpg"]
    assert photos["train2014/a.jpg"] == tmp_path / "train2014" / "a.jpg"


def test_values_of_wrong_types_are_counted(tmp_path: Path) -> None:
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
    summary = load(write_dataset(tmp_path, images)).summary
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


def test_a_photo_in_two_splits_is_not_used_for_training(tmp_path: Path) -> None:
    images = [image("a.jpg"), image("b.jpg", "train", "x"), image("b.jpg", "val", "y")]
    summary = load(write_dataset(tmp_path, images)).summary
    assert summary.photos_per_split == {"train": 1, "dev": 1, "test": 0}
    assert summary.photos_in_two_splits == 1


@pytest.mark.parametrize("images", [None, {}, "x", 3])
def test_a_file_without_a_list_of_images_is_rejected(tmp_path: Path, images: object) -> None:
    with pytest.raises(InputError, match=r"dataset_flickr8k\.json: key images is not a list"):
        load(write_dataset(tmp_path, images))


def test_the_error_for_invalid_json_names_its_position(tmp_path: Path) -> None:
    root = write_dataset(tmp_path, [])
    (root / "dataset_flickr8k.json").write_text('{"images": [}')
    with pytest.raises(InputError, match="line 1, column 13"):
        load(root)


def test_two_caption_files_are_rejected(tmp_path: Path) -> None:
    write_dataset(tmp_path, [image("a.jpg")])
    root = write_dataset(tmp_path, [image("a.jpg")], name="dataset_coco.json")
    with pytest.raises(InputError, match=r"dataset_coco\.json, dataset_flickr8k\.json: keep the"):
        load(root)
