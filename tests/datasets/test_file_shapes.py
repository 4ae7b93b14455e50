import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.datasets.file_shapes import identify_json, identify_shape

CAPTIONS = ["A dog runs, wet .", 'A "brown" dog jumps .', "Two cats sit on a wall ."]
PHOTOS = [f"p{number}.jpg" for number in range(6)]


def quoted(*cells: str) -> str:
    return ",".join(f'"{cell}"'.replace('"brown"', '""brown""') for cell in cells)


# Files in other shapes, and the rows that their conversion has to give.
FLAT = [(photo, caption) for photo in PHOTOS for caption in CAPTIONS]
TABLES = {
    "pipes": (
        "image_name| comment_number| comment\n"
        + "".join(f"{photo}| {n}| {text}\n" for n, (photo, text) in enumerate(FLAT))
        + "p9.jpg| 4   A broken row .\n",
        FLAT,
    ),
    "tabs": ("".join(f"{photo}\t{caption}\n" for photo, caption in FLAT), FLAT),
    "semicolons": (
        "filename;caption\n" + "".join(f"{quoted(p)};{quoted(c)}\n" for p, c in FLAT),
        FLAT,
    ),
    "five columns": (
        "image,c1,c2,c3\n" + "".join(quoted(photo, *CAPTIONS) + "\n" for photo in PHOTOS),
        FLAT,
    ),
    "five columns below the right header": (
        "image,caption\nimage,c1,c2,c3\n"
        + "".join(quoted(photo, *CAPTIONS) + "\n" for photo in PHOTOS),
        FLAT,
    ),
    "a split column": (
        "image,caption,split\n" + "".join(quoted(p, c, "train") + "\n" for p, c in FLAT),
        FLAT,
    ),
    "an index column": (
        ",image,caption\n" + "".join(quoted(str(n), p, c) + "\n" for n, (p, c) in enumerate(FLAT)),
        FLAT,
    ),
    "caption first": ("caption,image\n" + "".join(quoted(c, p) + "\n" for p, c in FLAT), FLAT),
    "tokens": ("".join(f"{p}#{n}\t{c}\n" for n, (p, c) in enumerate(FLAT)), FLAT),
    "tokens with spaces": ("".join(f"{p}#{n} {c}\n" for n, (p, c) in enumerate(FLAT)), FLAT),
}


@pytest.mark.parametrize(
    ("name", "file_name"),
    [*((name, "captions.txt") for name in TABLES), ("pipes", "my results.csv")],
)
def test_the_conversion_of_a_table_gives_its_captions(
    tmp_path: Path, name: str, file_name: str
) -> None:
    text, expected = TABLES[name]
    path = tmp_path / file_name
    path.write_text(text)
    shape = identify_shape(path)
    assert shape is not None
    command = re.search(r"run `(.*)` and set dataset\.format: kaggle$", shape.fix)
    assert command is not None, shape
    environment = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(command[1], shell=True, check=True, env=environment)
    with (tmp_path / "captions.txt").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["image", "caption"]
    assert [tuple(row) for row in rows] == expected


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("p1.jpg,A dog runs there\n" * 3, "add at the top the line image,caption"),
        ("file,text\n" + "p1.jpg,A dog runs there\n" * 3, "replace line 1 by image,caption"),
        ("", "put the captions there"),
        ('{"images": [{"sentences": []}]}', "dataset_NAME.json and set dataset.format: karpathy"),
        ("[1]", "write its captions to captions.txt"),
        ('{"image": "a.jpg"}\n{"image": "b.jpg"}\n', "write its captions to captions.txt"),
    ],
)
def test_the_fix_fits_the_shape(tmp_path: Path, text: str, fix: str) -> None:
    path = tmp_path / "captions.txt"
    path.write_text(text)
    shape = identify_shape(path)
    assert shape is not None
    assert fix in str(shape)


@pytest.mark.parametrize(
    "text", ["Once upon a time\nthere was, I think, a dog.\n", "\xff", "p.jpg\n"]
)
def test_other_text_has_no_shape(tmp_path: Path, text: str) -> None:
    path = tmp_path / "captions.txt"
    path.write_text(text)
    assert identify_shape(path) is None


def test_a_file_in_kaggles_form_under_another_name_is_to_be_renamed(tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    path.write_text("image,caption\n" + "p1.jpg,A dog runs there\n" * 3)
    shape = identify_shape(path)
    assert shape is not None
    assert shape.fix == "name it captions.txt and set dataset.format: kaggle"


def test_annotations_of_objects_are_no_captions() -> None:
    box, caption = {"image_id": 1, "bbox": [1, 2, 3, 4]}, {"image_id": 1, "caption": "A dog"}
    value = {"images": [{"id": 1}], "annotations": [box]}
    assert "annotations of objects" in str(identify_json(value))
    value = {"images": [{"id": 1}], "annotations": [box, caption]}
    assert "dataset.format: coco" in str(identify_json(value))
    assert "'a', 'b'" in str(identify_json(json.loads('{"a": 1, "b": {}}')))
