"""Drawing: scenes as photos, and the sample data set, in the layout of Flickr8k."""

import dataclasses
import io
import math
import re
from pathlib import Path

from PIL import Image, ImageDraw

from pipeline.datasets.sample.scenes import HEIGHT, WIDTH, Scene, ShapeGroup, generate_scene
from pipeline.datasets.sample.wordings import caption_scene
from pipeline.files import write_bytes, write_json, write_text
from pipeline.progress import track

# Saturated and far apart, so that JPEG and a CNN keep them distinct on every background.
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

# Scenes are drawn this many times larger and then averaged down, which smooths the edges.
_OVERSAMPLING = 4
# Distance of the corners from the centre, as a share of the diameter; chosen so that all
# shapes look equally large.
_CORNER_RADIUS = {"square": 0.64, "triangle": 0.61, "star": 0.56}
_STAR_WAIST = 0.45  # inner radius over outer radius
_JPEG_QUALITY = 90
# A photo of the sample, or a temporary file of one that a killed process left.
_SAMPLE_PHOTO = re.compile(r"(\.tmp-[0-9a-f]+-)?scene_(train|dev|test)_\d{4,}\.jpg")


def render_scene(scene: Scene) -> Image.Image:
    """Return a scene as an RGB image of 320 x 240 pixels."""
    size = (WIDTH * _OVERSAMPLING, HEIGHT * _OVERSAMPLING)
    image = Image.new("RGB", size, RGB[scene.background])
    canvas = ImageDraw.Draw(image)
    # The second shape of a pair is drawn first, because it may contain the first one.
    for group in reversed(scene.groups):
        for x, y in group.centres:
            _draw_shape(canvas, group, x * _OVERSAMPLING, y * _OVERSAMPLING)
    return image.reduce(_OVERSAMPLING)


def write_sample(root: Path, *, train: int, dev: int, test: int, seed: int) -> None:
    """Write the sample data set to `root`, in the layout of Flickr8k.

    Writes images/*.jpg, the captions, a list of names for each split, and the contents of
    each scene as JSON. Equal arguments give equal bytes. Photos of an earlier sample that
    are not in this one are removed; other files in the folder stay.

    Args:
        root: the folder of the data set; created if missing.
        train: number of training scenes.
        dev: number of dev scenes.
        test: number of test scenes.
        seed: seed of all random choices.
    """
    counts = {"train": train, "dev": dev, "test": test}
    splits = {
        split: [generate_scene(seed, split, index) for index in range(count)]
        for split, count in counts.items()
    }
    scenes = [scene for split_scenes in splits.values() for scene in split_scenes]
    photo_folder = root / "images"
    _remove_old_photos(photo_folder, {scene.name for scene in scenes})
    for scene in track(scenes, "sample", len(scenes), "scenes"):
        write_bytes(photo_folder / scene.name, _jpeg(render_scene(scene)))
    write_text(root / CAPTIONS_FILE, "".join(_caption_lines(scene) for scene in scenes))
    for split, split_scenes in splits.items():
        names = "".join(f"{scene.name}\n" for scene in split_scenes)
        write_text(root / f"Flickr_8k.{split}Images.txt", names)
    write_json(root / SCENES_FILE, {scene.name: _scene_entry(scene) for scene in scenes})


def _draw_shape(canvas: ImageDraw.ImageDraw, group: ShapeGroup, x: float, y: float) -> None:
    diameter = group.diameter * _OVERSAMPLING
    colour = RGB[group.colour]
    match group.shape:
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
            raise ValueError(f"no such shape: {group.shape}")


def _corners(x: float, y: float, radii: list[float], start: float) -> list[tuple[float, float]]:
    """Return corners spaced evenly around (x, y), the first at `start` degrees (-90 is up)."""
    angles = [math.radians(start + 360 * i / len(radii)) for i in range(len(radii))]
    return [
        (x + radius * math.cos(angle), y + radius * math.sin(angle))
        for radius, angle in zip(radii, angles, strict=True)
    ]


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # No chroma subsampling: it would blur the colours of small shapes.
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _caption_lines(scene: Scene) -> str:
    captions = caption_scene(scene)
    return "".join(f"{scene.name}#{i}\t{caption}\n" for i, caption in enumerate(captions))


def _scene_entry(scene: Scene) -> dict[str, object]:
    """Return a scene's entry in scenes.json; lengths are in pixels, centres are (x, y)."""
    return {
        "background": scene.background,
        "relation": scene.relation,
        "things": [{**dataclasses.asdict(group), "count": group.count} for group in scene.groups],
    }


def _remove_old_photos(folder: Path, names: set[str]) -> None:
    """Remove the sample's photos in `folder` that are not in `names`."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if _SAMPLE_PHOTO.fullmatch(path.name) and path.name not in names and path.is_file():
            path.unlink()
