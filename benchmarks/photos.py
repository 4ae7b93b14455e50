"""Drawn photos of the size of Flickr's, no two with the same bytes."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def draw_photos(folder: Path, count: int, width: int = 500, height: int = 375) -> list[Path]:
    """Draw JPEGs of soft colours with grain, about 60 kB each at 500 x 375."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    paths = []
    for number in range(count):
        coarse = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        soft = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        grain = random.normal(0, 12, (height, width, 1))
        pixels = (np.asarray(soft) + grain).clip(0, 255).astype(np.uint8)
        paths.append(folder / f"{number:05}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=85)
    return paths


def write_copies(folder: Path, count: int, side: int = 64) -> None:
    """Write one small photo `count` times, each with different bytes after its end."""
    (photo,) = draw_photos(folder, 1, side, side)
    data = photo.read_bytes()
    photo.unlink()
    for number in range(count):
        (folder / f"{number:05}.jpg").write_bytes(data + b"%d" % number)


def write_flickr8k(folder: Path, count: int) -> None:
    """Write a data set of `count` photos in Flickr8k's layout, each with five equal captions."""
    write_copies(folder / "images", count)
    names = [f"{number:05}.jpg" for number in range(count)]
    captions = io.StringIO()
    for name in names:
        captions.writelines(f"{name}#{k}\ta photo of soft colours\n" for k in range(5))
    (folder / "Flickr8k.token.txt").write_text(captions.getvalue(), "utf-8")
    splits = {"train": names[: -count // 5], "dev": names[-count // 5 : -count // 10]}
    splits["test"] = names[-count // 10 :]
    for split, members in splits.items():
        path = folder / f"Flickr_8k.{split}Images.txt"
        path.write_text("".join(f"{name}\n" for name in members), "utf-8")
