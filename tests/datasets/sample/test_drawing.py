import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.sample.drawing import RGB, render, write_sample
from pipeline.datasets.sample.scenes import HEIGHT, WIDTH, Scene, draw_scene

SCENES = [draw_scene(2026, "test", index) for index in range(40)]


def mask(photo: Image.Image, colour: str) -> np.ndarray:
    """Pixels (240, 320) that are of the colour rather than of any other."""
    pixels = np.asarray(photo, dtype=np.int64)[:, :, None]
    distance = ((pixels - np.array(list(RGB.values()))) ** 2).sum(axis=-1)
    nearest: np.ndarray = distance.argmin(axis=-1) == list(RGB).index(colour)
    return nearest


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root: Path = tmp_path_factory.mktemp("sample")
    write_sample(root, train=12, dev=3, test=5, seed=2026)
    return root


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_every_shape_has_its_colour_where_it_stands(scene: Scene) -> None:
    photo = render(scene)
    assert photo.size == (WIDTH, HEIGHT)
    assert photo.mode == "RGB"
    assert photo.getpixel((0, 0)) == RGB[scene.background]
    # A frame's centre is hidden by its content; its upper edge never is.
    shown = scene.things[:1] if scene.relation == "inside" else scene.things
    for thing in shown:
        for x, y in thing.centres:
            assert photo.getpixel((round(x), round(y))) == RGB[thing.colour]
    if scene.relation == "inside":
        frame = scene.things[1]
        x, y = frame.centres[0]
        assert photo.getpixel((round(x), round(y - 0.4 * frame.diameter))) == RGB[frame.colour]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_pixels_lie_round_the_centres_and_fill_the_size(scene: Scene) -> None:
    photo = render(scene)
    for colour in {thing.colour for thing in scene.things}:
        rows, columns = np.nonzero(mask(photo, colour))
        things = [thing for thing in scene.things if thing.colour == colour]
        centres = np.array([centre for thing in things for centre in thing.centres])
        diameters = [thing.diameter for thing in things for _ in thing.centres]
        # Areas of the four shapes, for a diameter of one, lie between 0.3 and 0.9.
        squares = sum(diameter**2 for diameter in diameters)
        if scene.relation != "inside":
            assert 0.3 * squares < len(rows) < 0.9 * squares
        assert abs(columns.min() - (centres[:, 0].min() - 0.5 * diameters[0])) < 8
        assert abs(columns.max() - (centres[:, 0].max() + 0.5 * diameters[-1])) < 8


def test_the_relation_is_to_be_seen_in_the_pixels() -> None:
    seen = set()
    for scene in SCENES:
        if scene.relation not in ("left of", "above"):
            continue
        seen.add(scene.relation)
        # Each thing drawn alone: both have the same colour.
        (x1, y1), (x2, y2) = (
            np.argwhere(mask(render(Scene("", scene.background, (thing,), None, 0)), thing.colour))[
                :, ::-1
            ].mean(axis=0)
            for thing in scene.things
        )
        across, down = x2 - x1, y2 - y1
        assert (across if scene.relation == "left of" else down) > 90
        assert abs(down if scene.relation == "left of" else across) < 20
    assert seen == {"left of", "above"}


def test_jpeg_keeps_the_colours(sample: Path) -> None:
    truth = json.loads((sample / "scenes.json").read_text())
    for name, scene in truth.items():
        with Image.open(sample / "images" / name) as photo:
            thing = scene["things"][0]
            x, y = thing["centres"][0]
            assert mask(photo, thing["colour"])[round(y), round(x)]
            assert mask(photo, scene["background"])[0, 0]


def test_the_sample_is_laid_out_as_flickr8k(sample: Path) -> None:
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


def test_the_truth_is_written_beside_the_photos(sample: Path) -> None:
    truth = json.loads((sample / "scenes.json").read_text())
    assert list(truth) == sorted(truth)
    scene = draw_scene(2026, "dev", 2)
    written = truth[scene.name]
    assert written["background"] == scene.background
    assert written["relation"] == scene.relation
    assert [
        (thing["shape"], thing["colour"], thing["size"], thing["count"])
        for thing in written["things"]
    ] == [(thing.shape, thing.colour, thing.size, thing.count) for thing in scene.things]


def test_the_default_sample_has_no_photo_twice_and_is_the_same_each_time(tmp_path: Path) -> None:
    counts = {"train": 360, "dev": 40, "test": 80}
    write_sample(tmp_path / "once", **counts, seed=2026)
    write_sample(tmp_path / "again", **counts, seed=2026)
    once = files(tmp_path / "once")
    assert once == files(tmp_path / "again")
    photos = [data for name, data in once.items() if name.endswith(".jpg")]
    assert len(set(photos)) == len(photos) == 480


def test_a_split_does_not_depend_on_the_size_of_another(sample: Path, tmp_path: Path) -> None:
    write_sample(tmp_path, train=1, dev=1, test=5, seed=2026)
    for index in range(5):
        photo = Path("images") / f"scene_test_{index:04d}.jpg"
        assert (tmp_path / photo).read_bytes() == (sample / photo).read_bytes()


def test_drawing_again_removes_our_leftovers_and_nothing_else(tmp_path: Path) -> None:
    write_sample(tmp_path, train=3, dev=1, test=1, seed=1)
    strangers = [tmp_path / "images" / "holiday.jpg", tmp_path / "scene_train_0009.jpg"]
    for path in (*strangers, tmp_path / "images" / ".tmp-12-scene_dev_0000.jpg"):
        path.write_bytes(b"")
    write_sample(tmp_path, train=2, dev=1, test=1, seed=1)
    assert {path.name for path in (tmp_path / "images").iterdir()} == {
        "holiday.jpg",
        "scene_train_0000.jpg",
        "scene_train_0001.jpg",
        "scene_dev_0000.jpg",
        "scene_test_0000.jpg",
    }
    assert all(path.exists() for path in strangers)
