"""Karpathy's format: one `dataset_*.json` with photos, splits and sentences.

Source: Karpathy and Fei-Fei, "Deep visual-semantic alignments for generating image
descriptions", CVPR 2015; released for Flickr8k, Flickr30k and COCO. As in other
work, its `restval` photos are used for training.

Photos are in `root/FILEPATH` (COCO's train2014 and val2014), or in a photo folder, with or
without the subfolder FILEPATH. The image_id is FILEPATH/FILENAME if the photo is in such a
folder, and the file name if not.
"""

import reprlib
from collections.abc import Iterator
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
from pipeline.datasets.photo_folders import (
    PHOTO_FOLDERS,
    FolderContents,
    find_photo_folder,
    list_folder,
)
from pipeline.datasets.photo_names import PhotoIndex, PhotoNames
from pipeline.datasets.text_files import read_json_object
from pipeline.errors import InputError

CAPTION_FILES = ("dataset_*.json",)
_SPLIT_BY_NAME = {"train": "train", "restval": "train", "val": "dev", "test": "test"}
_FIX = "get the file again, or set dataset.format in params.yaml to the file's format"


def find_karpathy_photos(root: Path) -> FolderContents:
    """List the photo folder and the photos in other folders in root."""
    folder = find_photo_folder(root)
    in_photo_folder = FolderContents() if folder is None else list_folder(folder)
    elsewhere = list_folder(root, exclude=PHOTO_FOLDERS)
    # The root also has the captions, and what else came with them.
    pictures = {name: kind for name, kind in elsewhere.other_files.items() if kind.is_picture}
    return in_photo_folder | FolderContents(elsewhere.photos, pictures)


def read_karpathy(root: Path, photos: PhotoIndex) -> Annotations:
    """Read the `dataset_*.json` under `root`.

    Raises:
        InputError: there is none, or more than one; it is not JSON, or has no list `images`.
        OSError: it cannot be read.
    """
    paths = sorted(root.glob(CAPTION_FILES[0]))
    if len(paths) != 1:
        names = ", ".join(path.name for path in paths)
        raise InputError(
            f"{root} has {names or 'no captions'}: keep the one file {CAPTION_FILES[0]} "
            "that describes the photos there"
        )
    summary = Summary()
    content = read_json_object(paths[0], _FIX, summary)
    images = content.get("images")
    if not isinstance(images, list):
        raise InputError(f"{paths[0]}: key images is not a list: {identify_json(content)}")
    splits = _splits(images, photos, paths[0].name, summary)
    return collect_annotations(_raw_captions(images, paths[0].name), photos, splits, summary)


def _raw_captions(images: list[Any], file_name: str) -> Iterator[RawCaption]:
    for position, image in enumerate(images):
        where = f"{file_name}: images[{position}]"
        sentences = image.get("sentences") if isinstance(image, dict) else None
        if not isinstance(sentences, list):
            yield RawCaption(where, (), None, image)
            continue
        names = _possible_names(image)
        for index, sentence in enumerate(sentences):
            is_object = isinstance(sentence, dict)
            yield RawCaption(
                f"{where}.sentences[{index}]",
                names,
                json_id(sentence, "sentid"),
                sentence.get("raw") if is_object else sentence,
            )


def _splits(
    images: list[Any], photos: PhotoIndex, file_name: str, summary: Summary
) -> dict[str, str]:
    lists: dict[str, list[str]] = {}
    all_names = [_possible_names(image) if isinstance(image, dict) else () for image in images]
    matches = photos.match_all(filter(None, all_names))
    for position, (image, names) in enumerate(zip(images, all_names, strict=True)):
        if not names or matches[names].reason == "unsafe_name":
            continue
        image_id = matches[names].image_id
        split = image.get("split")
        if not isinstance(split, str) or split not in _SPLIT_BY_NAME:
            summary.note("unknown_split", f"{file_name}: images[{position}]", reprlib.repr(split))
        elif image_id is not None:
            lists.setdefault(_SPLIT_BY_NAME[split], []).append(image_id)
    return merge_split_lists(lists, file_name, summary)


def _possible_names(image: dict[str, Any]) -> PhotoNames:
    file_name, file_path = image.get("filename"), image.get("filepath")
    if not isinstance(file_name, str):
        return ()
    if isinstance(file_path, str) and file_path:
        return (f"{file_path}/{file_name}", file_name)
    return (file_name,)
