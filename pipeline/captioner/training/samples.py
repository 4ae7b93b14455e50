"""Samples: the captions of a few dev photos after each epoch, as text and as a contact sheet."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.errors import one_line
from pipeline.features.decoding.photos import PhotoError, read_photo, thumbnail
from pipeline.files import atomic_path, write_text

_SIDE = 240  # pixels of a photo
_CAPTION_HEIGHT = 64
_MARGIN = 12
_COLUMNS = 3
_LINE_LENGTH = 38  # characters


def choose_sample_photos(image_ids: Sequence[str], count: int, seed: int) -> list[str]:
    """Choose the photos to caption after each epoch: the same ones for the same seed."""
    random = np.random.default_rng(seed)
    return sorted(random.choice(image_ids, min(count, len(image_ids)), replace=False).tolist())


def write_text_sample(path: Path, captions: Mapping[str, str]) -> None:
    """Write `image_id<TAB>caption` lines."""
    write_text(
        path,
        "".join(f"{one_line(image_id)}\t{one_line(text)}\n" for image_id, text in captions.items()),
    )


def write_contact_sheet(
    path: Path, image_paths: Mapping[str, Path | None], captions: Mapping[str, str], title: str
) -> None:
    """Draw photos with their captions below, as a PNG.

    A grey square replaces a photo that no longer exists: training needs only its cached
    features.
    """
    rows = -(-len(captions) // _COLUMNS)
    width = _COLUMNS * (_SIDE + _MARGIN) + _MARGIN
    height = rows * (_SIDE + _CAPTION_HEIGHT + _MARGIN) + 2 * _MARGIN + _MARGIN
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    draw.text((_MARGIN, 6), title, "black", font)
    for position, (image_id, text) in enumerate(captions.items()):
        row, column = divmod(position, _COLUMNS)
        left = _MARGIN + column * (_SIDE + _MARGIN)
        top = 2 * _MARGIN + 4 + row * (_SIDE + _CAPTION_HEIGHT + _MARGIN)
        sheet.paste(_thumbnail(image_paths.get(image_id)), (left, top))
        lines = "\n".join(textwrap.wrap(one_line(text), _LINE_LENGTH)[:3])
        draw.multiline_text((left, top + _SIDE + 4), lines, "black", font)
    with atomic_path(path) as temporary:
        sheet.save(temporary, "PNG")


def _thumbnail(path: Path | None) -> Image.Image:
    if path is not None:
        try:
            return thumbnail(read_photo(path), _SIDE)
        except PhotoError:
            pass  # it was readable when its features were computed
    return Image.new("RGB", (_SIDE, _SIDE), "lightgrey")
