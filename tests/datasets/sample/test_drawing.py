import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.sample.drawing import RGB, render_scene, write_sample
from pipeline.datasets.sample.scenes import HEIGHT, WIDTH, Scene, generate_scene

SCENES = [generate_scene(2026, "test", index) for index in range(40)]


def colour_mask(photo: Image.Image, colour: str) -> np.ndarray:
    """Return which pixels, (240, 320), are nearer to the colour than to any other."""
    pixels = np.asarray(photo, dtype=np.int64)[:, :, None]
    distance = ((pixels - np.array(list(RGB.values()))) ** 2).sum(axis=-1)
    nearest: np.ndarray = distance.argmin(axis=-1) == list(RGB).index(colour)
    return nearest


def read_files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("sample")
    write_sample(root, train=12, dev=3, test=5, seed=2026)
    return root


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_every_shape_has_its_colour_at_its_centre(scene: Scene) -> None:
    photo = render_scene(scene)
    assert photo.size == (WIDTH, HEIGHT)
    assert photo.mode == "RGB"
    assert photo.getpixel((0, 0)) == RGB[scene.background]
    # An outer shape's centre is hidden by the inner shape; its upper edge never is.
    visible = scene.groups[:1] if scene.relation == "inside" else scene.groups
    for group in visible:
        for x, y in group.centres:
            assert photo.getpixel((round(x), round(y))) == RGB[group.colour]
    if scene.relation == "inside":
        outer = scene.groups[1]
        x, y = outer.centres[0]
        assert photo.getpixel((round(x), round(y - 0.4 * outer.diameter))) == RGB[outer.colour]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_shapes_have_their_position_and_size(scene: Scene) -> None:
    photo = render_scene(scene)
    for colour in {group.colour for group in scene.groups}:
        rows, columns = np.nonzero(colour_mask(photo, colour))
        groups = [group for group in scene.groups if group.colour == colour]
        centres = np.array([centre for group in groups for centre in group.centres])
        diameters = [group.diameter for group in groups for _ in group.centres]
        # The areas of the four shapes with a diameter of 1 are between 0.3 and 0.9.
        squares = sum(diameter**2 for diameter in diameters)
        if scene.relation != "inside":
            assert 0.3 * squares < len(rows) < 0.9 * squares
        assert abs(columns.min() - (centres[:, 0].min() - 0.5 * diameters[0])) < 8
        assert abs(columns.max() - (centres[:, 0].max() + 0.5 * diameters[-1])) < 8


def test_the_pixels_show_the_relation() -> None:
    tested = set()
    for scene in SCENES:
        if scene.relation not in ("left of", "above"):
            continue
        tested.add(scene.relation)
        # Each shape is drawn alone, because both have the same colour.
        (x1, y1), (x2, y2) = (
            np.argwhere(
                colour_mask(
                    render_scene(Scene("", scene.background, (group,), None, 0)), group.colour
                )
            )[:, ::-1].mean(axis=0)
            for group in scene.groups
        )
        across, down = x2 - x1, y2 - y1
        assert (across if scene.relation == "left of" else down) > 90
        assert abs(down if scene.relation == "left of" else across) < 20
    assert tested == {"left of", "above"}


def test_the_colours_survive_jpeg(sample: Path) -> None:
    entries = json.loads((sample / "scenes.json").read_text())
    for name, scene in entries.items():
        with Image.open(sample / "images" / name) as photo:
            group = scene["things"][0]
            x, y = group["centres"][0]
            assert colour_mask(photo, group["colour"])[round(y), round(x)]
            assert colour_mask(photo, scene["background"])[0, 0]


def test_the_sample_has_the_layout_of_flickr8k(sample: Path) -> None:
    photos = sorted(path.name for path in (sample / "images").iterdir())
    listed = []
    for split, count in (("train", 12), ("dev", 3), ("test", 5)):
        names = (sample / f"Flickr_8k.{split}Images.txt").read_text().splitlines()
        assert names == [f"scene_{split}_{index:04d}.jpg" for index in range(count)]
        listed += names
    assert sorted(listed) == photos
    lines = (sample / "Flickr8k.token.txt").read_text().splitlines()
    keys = [line.split("\t")[0] for line in lines]
    assert keys == [f"{name}#{i}" for name in listed for i in range(5)]
    assert all(len(line.split("\t")) == 2 for line in lines)


def test_the_contents_of_the_scenes_are_written(sample: Path) -> None:
    entries = json.loads((sample / "scenes.json").read_text())
    assert list(entries) == sorted(entries)
    scene = generate_scene(2026, "dev", 2)
    entry = entries[scene.name]
    assert entry["background"] == scene.background
    assert entry["relation"] == scene.relation
    assert [
        (group["shape"], group["colour"], group["size"], group["count"])
        for group in entry["things"]
    ] == [(group.shape, group.colour, group.size, group.count) for group in scene.groups]


def test_the_default_sample_is_reproducible_and_has_no_photo_twice(tmp_path: Path) -> None:
    counts = {"train": 360, "dev": 40, "test": 80}
    write_sample(tmp_path / "first", **counts, seed=2026)
    write_sample(tmp_path / "second", **counts, seed=2026)
    files = read_files(tmp_path / "first")
    assert files == read_files(tmp_path / "second")
    photos = [data for name, data in files.items() if name.endswith(".jpg")]
    assert len(set(photos)) == len(photos) == 480


def test_a_split_does_not_depend_on_the_size_of_another(sample: Path, tmp_path: Path) -> None:
    write_sample(tmp_path, train=1, dev=1, test=5, seed=2026)
    for index in range(5):
        photo = Path("images") / f"scene_test_{index:04d}.jpg"
        assert (tmp_path / photo).read_bytes() == (sample / photo).read_bytes()


def test_a_new_sample_removes_old_photos_and_nothing_else(tmp_path: Path) -> None:
    write_sample(tmp_path, train=3, dev=1, test=1, seed=1)
    unrelated = [tmp_path / "images" / "holiday.jpg", tmp_path / "scene_train_0009.jpg"]
    for path in (*unrelated, tmp_path / "images" / ".tmp-12-scene_dev_0000.jpg"):
        path.write_bytes(b"")
    write_sample(tmp_path, train=2, dev=1, test=1, seed=1)
    assert {path.name for path in (tmp_path / "images").iterdir()} == {
        "holiday.jpg",
        "scene_train_0000.jpg",
        "scene_train_0001.jpg",
        "scene_dev_0000.jpg",
        "scene_test_0000.jpg",
    }
    assert all(path.exists() for path in unrelated)
