import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.datasets.annotations import Annotations
from pipeline.datasets.formats import find_photos, read_annotations
from pipeline.errors import InputError


def coco_json(*names: str) -> dict[str, list[Any]]:
    return {
        "images": [{"id": n, "file_name": name} for n, name in enumerate(names)],
        "annotations": [
            {"id": n, "image_id": n, "caption": f"a {name}"} for n, name in enumerate(names)
        ],
    }


def write_dataset(root: Path, files: dict[str, object], *paths: str) -> Path:
    for name, value in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps(value))
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def load(root: Path, dev_share: float = 0.0, test_share: float = 0.0) -> Annotations:
    return read_annotations("coco", root, split_seed=1, dev_share=dev_share, test_share=test_share)


@pytest.mark.parametrize("folder", ["", "annotations/"])
@pytest.mark.parametrize("parent", ["", "images/"])
def test_files_and_folders_named_by_split_are_read(
    tmp_path: Path, folder: str, parent: str
) -> None:
    files: dict[str, object] = {
        f"{folder}captions_{name}2017.json": coco_json("a.jpg") for name in ("train", "val", "test")
    }
    paths = [f"{parent}{name}2017/a.jpg" for name in ("train", "val", "test", "unlabeled")]
    root = write_dataset(tmp_path, files, *paths)
    annotations = load(root)
    assert [(row.image_id, row.split) for row in annotations.rows] == [
        ("test2017/a.jpg", "test"),
        ("train2017/a.jpg", "train"),
        ("val2017/a.jpg", "dev"),
    ]
    assert list(find_photos("coco", root)) == ["test2017/a.jpg", "train2017/a.jpg", "val2017/a.jpg"]


def test_all_files_may_share_one_photo_folder(tmp_path: Path) -> None:
    files: dict[str, object] = {
        "captions_train.json": coco_json("a.jpg"),
        "captions_test.json": coco_json("b.jpg"),
    }
    annotations = load(write_dataset(tmp_path, files, "images/a.jpg", "images/b.jpg"))
    assert [(row.image_id, row.split) for row in annotations.rows] == [
        ("a.jpg", "train"),
        ("b.jpg", "test"),
    ]


def test_without_a_test_file_val_is_divided_evenly(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(200)]
    files: dict[str, object] = {
        "captions_train.json": coco_json("a.jpg"),
        "captions_val.json": coco_json(*names),
    }
    root = write_dataset(tmp_path, files, "train/a.jpg", *(f"val/{name}" for name in names))
    per_split = load(root).summary.photos_per_split
    assert per_split["train"] == 1
    assert abs(per_split["dev"] - per_split["test"]) < 50


@pytest.mark.parametrize("name", ["captions_all.json", "captions_val2017.json"])
def test_files_of_one_split_or_none_get_splits_drawn_by_the_shares(
    tmp_path: Path, name: str
) -> None:
    names = [f"{number}.jpg" for number in range(100)]
    root = write_dataset(tmp_path, {name: coco_json(*names)}, *(f"images/{name}" for name in names))
    per_split = load(root, dev_share=0.2, test_share=0.2).summary.photos_per_split
    assert 40 < per_split["train"] < 80
    assert all(per_split.values())


def test_values_of_wrong_types_are_counted(tmp_path: Path) -> None:
    value = coco_json("a.jpg", "../b.jpg", "z.jpg")
    value["images"] += [
        "x",
        {"id": 9},
        {"id": [1], "file_name": "b.jpg"},
        {"id": 0, "file_name": "q"},
    ]
    value["annotations"] += [
        {"id": 7, "image_id": 0, "caption": None},
        {"id": 8, "image_id": 0, "caption": 5},
        {"id": 0, "image_id": 0, "caption": "a a.jpg"},
        {"id": 0, "image_id": 0, "caption": "other"},
        {"id": True, "image_id": 0, "caption": "a a.jpg"},
        {"id": 1, "image_id": 99, "caption": "x"},
        {"id": 1, "image_id": {}, "caption": "x"},
        None,
    ]
    summary = load(write_dataset(tmp_path, {"captions_train.json": value}, "images/a.jpg")).summary
    assert summary.dropped == {
        "unsafe_name": 1,
        "photo_not_there": 1,
        "wrong_type": 2,
        "repeated_row": 1,
        "malformed": 3,
    }
    assert summary.captions_kept == 3
    assert summary.noted == {"malformed_image_entry": 4, "reused_number": 1, "same_wording": 1}


@pytest.mark.parametrize("key", ["images", "annotations"])
def test_a_missing_list_is_an_input_error(tmp_path: Path, key: str) -> None:
    value: dict[str, object] = dict(coco_json("a.jpg"))
    del value[key]
    root = write_dataset(tmp_path, {"captions_train.json": value}, "images/a.jpg")
    with pytest.raises(InputError, match=rf"captions_train\.json: key {key} is not a list"):
        load(root)


def test_a_photo_in_two_files_is_not_used_for_training(tmp_path: Path) -> None:
    files: dict[str, object] = {
        "captions_train.json": coco_json("a.jpg", "b.jpg"),
        "captions_test.json": coco_json("b.jpg"),
    }
    summary = load(write_dataset(tmp_path, files, "images/a.jpg", "images/b.jpg")).summary
    assert summary.photos_per_split == {"train": 1, "dev": 0, "test": 1}
    assert summary.photos_in_two_splits == 1
