"""Pixels of the drawn scenes, and the sample data set they make, laid out as Flickr8k."""

import dataclasses
import io
import math
import re
from pathlib import Path

from PIL import Image, ImageDraw

from pipeline.datasets.sample.scenes import HEIGHT, WIDTH, Scene, Thing, draw_scene
from pipeline.datasets.sample.wordings import captions
from pipeline.files import write_bytes, write_json, write_text

# Saturated and far apart, so that JPEG and a CNN keep them so on every background.
RGB = {
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "red": (225, 0, 20),
    "green": (0, 140, 40),
    "blue": (0, 40, 220),
    "grey": (140, 140, 140),
    "pink": (235, 150, 180),
    "brown": (185, 135, 80),
}
CAPTIONS_FILE = "Flickr8k.token.txt"
SCENES_FILE = "scenes.json"

# Shapes are drawn this many times too large and averaged down, which smooths their edges.
_OVERSAMPLING = 4
# Radius of the corners as a share of the diameter, so that all shapes look equally large.
_CORNER_RADIUS = {"square": 0.64, "triangle": 0.61, "star": 0.56}
_STAR_WAIST = 0.45  # inner radius over outer radius
_JPEG_QUALITY = 90
# A photo of ours, or one half-written by a draw that was killed.
_OUR_PHOTO = re.compile(r"(\.tmp-[0-9a-f]+-)?scene_(train|dev|test)_\d{4,}\.jpg")


def render(scene: Scene) -> Image.Image:
    """Draw a scene as an RGB image of 320 x 240 pixels."""
    size = (WIDTH * _OVERSAMPLING, HEIGHT * _OVERSAMPLING)
    image = Image.new("RGB", size, RGB[scene.background])
    canvas = ImageDraw.Draw(image)
    # The second thing of a pair first: it may hold the first one.
    for thing in reversed(scene.things):
        for x, y in thing.centres:
            _draw_shape(canvas, thing, x * _OVERSAMPLING, y * _OVERSAMPLING)
    return image.reduce(_OVERSAMPLING)


def write_sample(root: Path, *, train: int, dev: int, test: int, seed: int) -> None:
    """Draw the sample data set into `root`, as Flickr8k lays out its files.

    Writes images/*.jpg, the captions, a list of names for each split, and the truth of
    each scene as JSON. Equal arguments give equal bytes. Photos of an earlier draw that
    no longer belong are removed; other files in the folder stay.

    Args:
        root: the folder of the data set; made if it is not there.
        train: number of scenes to train on.
        dev: number of scenes to validate on.
        test: number of scenes to score on.
        seed: of everything random.
    """
    counts = {"train": train, "dev": dev, "test": test}
    splits = {
        split: [draw_scene(seed, split, index) for index in range(count)]
        for split, count in counts.items()
    }
    scenes = [scene for split in splits.values() for scene in split]
    images = root / "images"
    _remove_leftovers(images, {scene.name for scene in scenes})
    for scene in scenes:
        write_bytes(images / scene.name, _jpeg(render(scene)))
    write_text(root / CAPTIONS_FILE, "".join(_caption_lines(scene) for scene in scenes))
    for split, members in splits.items():
        names = "".join(f"{scene.name}\n" for scene in members)
        write_text(root / f"Flickr_8k.{split}Images.txt", names)
    write_json(root / SCENES_FILE, {scene.name: _truth(scene) for scene in scenes})


def _draw_shape(canvas: ImageDraw.ImageDraw, thing: Thing, x: float, y: float) -> None:
    diameter = thing.diameter * _OVERSAMPLING
    colour = RGB[thing.colour]
    match thing.shape:
        case "circle":
            canvas.circle((x, y), diameter / 2, fill=colour)
        case "star":
            outer = _CORNER_RADIUS["star"] * diameter
            radii = [outer, _STAR_WAIST * outer] * 5
            canvas.polygon(_corners(x, y, radii, -90), fill=colour)
        case "triangle":
            radii = [_CORNER_RADIUS["triangle"] * diameter] * 3
            canvas.polygon(_corners(x, y, radii, -90), fill=colour)
        case "square":
            radii = [_CORNER_RADIUS["square"] * diameter] * 4
            canvas.polygon(_corners(x, y, radii, -45), fill=colour)
        case _:
            raise ValueError(f"no such shape: {thing.shape}")


def _corners(x: float, y: float, radii: list[float], start: float) -> list[tuple[float, float]]:
    """Corners evenly spread round (x, y), the first at `start` degrees (-90 is the top)."""
    turns = [math.radians(start + 360 * i / len(radii)) for i in range(len(radii))]
    return [
        (x + radius * math.cos(turn), y + radius * math.sin(turn))
        for radius, turn in zip(radii, turns, strict=True)
    ]


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # No chroma subsampling: it would bleed the colours of small shapes into each other.
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _caption_lines(scene: Scene) -> str:
    return "".join(f"{scene.name}#{i}\t{caption}\n" for i, caption in enumerate(captions(scene)))


def _truth(scene: Scene) -> dict[str, object]:
    """What scenes.json says of a scene; lengths are in pixels, centres (x, y)."""
    return {
        "background": scene.background,
        "relation": scene.relation,
        "things": [{**dataclasses.asdict(thing), "count": thing.count} for thing in scene.things],
    }


def _remove_leftovers(images: Path, names: set[str]) -> None:
    if not images.is_dir():
        return
    for path in images.iterdir():
        if _OUR_PHOTO.fullmatch(path.name) and path.name not in names and path.is_file():
            path.unlink()
