"""COCO's format: `captions_*.json` files with `images` and `annotations`.

Source: Chen et al., "Microsoft COCO captions: data collection and evaluation server",
arXiv:1504.00325. The files are in the data set's folder or in `annotations`.

The photos of captions_train2014.json are in `train2014` or `images/train2014`, and then
have the image_id train2014/FILE_NAME; or they are in a photo folder, and then have FILE_NAME.

Files named train, val and test give those splits (val is dev). Without a test file, the val
photos are divided evenly between dev and test. If the files name only one split or none, all
three are drawn from the seed; so are the photos of a file that names no split.
"""

import re
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.datasets.annotations import Annotations, Summary
from pipeline.datasets.collection import (
    RawCaption,
    collect_annotations,
    json_id,
    merge_split_lists,
)
from pipeline.datasets.file_shapes import identify_json
from pipeline.datasets.photo_folders import FolderContents, find_photo_folder, list_folder
from pipeline.datasets.photo_names import PhotoIndex, PhotoNames
from pipeline.datasets.splits import draw_split
from pipeline.datasets.text_files import read_json_object
from pipeline.errors import InputError

CAPTION_FILES = ("captions_*.json", "annotations/captions_*.json")
_SPLIT_BY_NAME = {"train": "train", "val": "dev", "dev": "dev", "test": "test"}
_SPLIT_NAME = re.compile("|".join(_SPLIT_BY_NAME))
_FIX = "get the file again, or set dataset.format in params.yaml to the file's format"


@dataclass(frozen=True)
class _CaptionFile:
    path: Path
    names_by_id: dict[int | str, PhotoNames]  # COCO's own image id -> possible photo names
    annotations: list[Any]

    @property
    def split(self) -> str | None:
        match = _SPLIT_NAME.match(_folder_name(self.path))
        return _SPLIT_BY_NAME[match[0]] if match else None


def find_coco_photos(root: Path) -> FolderContents:
    """List the photos in the folders that belong to the caption files."""
    files = FolderContents()
    photo_folder = find_photo_folder(root)
    for name in map(_folder_name, _caption_paths(root)):
        parents = [root] if photo_folder is None else [root, photo_folder]
        folder = next((parent / name for parent in parents if (parent / name).is_dir()), None)
        if folder is not None:
            files |= list_folder(folder).below(name)
        elif photo_folder is not None:
            files = list_folder(photo_folder) | files
    return files


def read_coco(
    root: Path, photos: PhotoIndex, *, split_seed: int, dev_share: float, test_share: float
) -> Annotations:
    """Read every `captions_*.json` under `root` and draw the splits that they do not define.

    Raises:
        InputError: a file is not JSON, or lacks the list `images` or `annotations`.
        OSError: a file cannot be read.
    """
    summary = Summary()
    files = [_load(path, summary) for path in _caption_paths(root)]
    named_splits = {file.split for file in files} - {None}
    lists: dict[str, list[str]] = {}
    for file in files:
        for image_id in _existing_photos(file, photos):
            split = file.split
            if split is None or len(named_splits) == 1:
                split = draw_split(image_id, split_seed, dev_share=dev_share, test_share=test_share)
            elif split == "dev" and "test" not in named_splits:
                split = draw_split(image_id, split_seed, dev_share=0.5, test_share=0.5)
            lists.setdefault(split, []).append(image_id)
    splits = merge_split_lists(lists, "captions files", summary)
    captions = (caption for file in files for caption in _raw_captions(file))
    return collect_annotations(captions, photos, splits, summary)


def _caption_paths(root: Path) -> list[Path]:
    return sorted(path for pattern in CAPTION_FILES for path in root.glob(pattern))


def _folder_name(path: Path) -> str:
    return path.stem.removeprefix("captions_")


def _load(path: Path, summary: Summary) -> _CaptionFile:
    content = read_json_object(path, _FIX, summary)
    for key in ("images", "annotations"):
        if not isinstance(content.get(key), list):
            raise InputError(f"{path}: key {key} is not a list: {identify_json(content)}")
    names_by_id: dict[int | str, PhotoNames] = {}
    for position, image in enumerate(content["images"]):
        coco_id = json_id(image, "id")
        file_name = image.get("file_name") if isinstance(image, dict) else None
        if coco_id is None or coco_id in names_by_id or not isinstance(file_name, str):
            where = f"{path.name}: images[{position}]"
            summary.note("malformed_image_entry", where, reprlib.repr(image))
        else:
            names_by_id[coco_id] = (f"{_folder_name(path)}/{file_name}", file_name)
    return _CaptionFile(path, names_by_id, content["annotations"])


def _existing_photos(file: _CaptionFile, photos: PhotoIndex) -> Iterator[str]:
    for match in photos.match_all(file.names_by_id.values()).values():
        if match.image_id is not None:
            yield match.image_id


def _raw_captions(file: _CaptionFile) -> Iterator[RawCaption]:
    for position, annotation in enumerate(file.annotations):
        where = f"{file.path.name}: annotations[{position}]"
        coco_id = json_id(annotation, "image_id")
        if coco_id is None or coco_id not in file.names_by_id:
            yield RawCaption(where, (), None, annotation)
        else:
            names = file.names_by_id[coco_id]
            yield RawCaption(where, names, json_id(annotation, "id"), annotation.get("caption"))
