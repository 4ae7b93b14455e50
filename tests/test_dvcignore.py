"""DVC tracks every file that the readers read, so that it notices each change."""

import os
import sys
from pathlib import Path

import pytest
from dvc.fs import localfs  # type: ignore[import-untyped]
from dvc.repo import Repo  # type: ignore[import-untyped]
from dvc_data.hashfile.build import build

from pipeline.datasets.formats import find_photos, read_annotations
from pipeline.errors import InputError
from tests.support.photo_parts import as_png, picture

PROJECT = Path(__file__).parents[1]
PHOTOS = (
    "plain.png",
    "runs/a.png",
    "cache/a.png",
    "build/a.png",
    "__pycache__/a.png",
    "deep/runs/a.png",
    "node_modules/a.png",
    "x.dvc.png",
    "x.dvc",
    "dvc.yaml.png",
    "dvc.lock",
    "#a.png",
    "!a.png",
    "[a].png",
    "*.png",
    "a b .png",
    "end ",
    " start.png",
    "line\nbreak.png",
    "end\n",
    "back\\slash.png",
)
SYSTEM_FILES = (
    ".DS_Store",
    "._plain.png",
    ".directory",
    "Thumbs.db",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "Desktop.ini",
    "@eaDir/plain.png",
    "deep/@eaDir/plain.png@SynoEAStream",
    "__MACOSX/._plain.png",
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Repo.init(no_scm=True).close()
    (tmp_path / ".dvcignore").write_bytes((PROJECT / ".dvcignore").read_bytes())
    return tmp_path


def write_photos(folder: Path, names: tuple[str, ...] = PHOTOS) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(as_png(picture(name)))
    return folder


def tracked_files(root: Path) -> set[str]:
    """Return the files below `root` of which DVC compares the contents."""
    with Repo(".") as repo:
        _, _, tree = build(
            repo.cache.local,
            os.path.abspath(root),  # noqa: PTH100  (not through links)
            localfs,
            "md5",
            dry_run=True,
            ignore=repo.dvcignore,
        )
    return {"/".join(key) for key, *_ in iter(tree)}  # type: ignore[call-overload]


def read_files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in find_photos("kaggle", root).values()}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
@pytest.mark.usefixtures("project")
def test_dvc_tracks_exactly_the_photos_that_are_read() -> None:
    root = Path("data/mine")
    write_photos(root / "images")
    write_photos(root / "images", SYSTEM_FILES)
    write_photos(root / "more")
    (root / "images/linked.png").symlink_to("plain.png")
    expected = {f"images/{name}" for name in (*PHOTOS, "linked.png")}
    assert read_files(root) == expected
    assert {name for name in tracked_files(root) if name.startswith("images/")} == expected


@pytest.mark.parametrize("folder", ["runs", ".cache", ".venv", "data/runs", "build"])
@pytest.mark.usefixtures("project")
def test_a_root_of_any_name_but_the_projects_own_is_tracked(folder: str) -> None:
    root = Path(folder) if "/" in folder else Path("data") / folder
    write_photos(root / "images", ("a.png",))
    assert read_files(root) == {"images/a.png"} == tracked_files(root)


def test_a_root_that_is_a_link_is_followed(project: Path) -> None:
    write_photos(project / "disk/images", ("a.png",))
    Path("data").mkdir()
    Path("data/mine").symlink_to(project / "disk")
    assert read_files(Path("data/mine")) == {"images/a.png"} == tracked_files(Path("data/mine"))


def test_a_photo_folder_that_is_a_link_out_of_the_root_is_refused(project: Path) -> None:
    root = Path("data/mine")
    write_photos(project / "disk", ("a.png",))
    root.mkdir(parents=True)
    (root / "captions.txt").write_text("image,caption\na.png,A dog\n")
    (root / "images").symlink_to(project / "disk")
    assert tracked_files(root) == {"captions.txt"}
    with pytest.raises(InputError, match=r"images is a link to .*disk, and DVC .*dataset\.root"):
        find_photos("kaggle", root)
    with pytest.raises(InputError, match="is a link to"):
        read_annotations("kaggle", root, split_seed=1, dev_share=0, test_share=0)


@pytest.mark.usefixtures("project")
def test_a_photo_folder_that_is_a_link_within_the_root_is_read() -> None:
    root = Path("data/mine")
    write_photos(root / "photos", ("a.png",))
    (root / "images").symlink_to("photos")
    assert read_files(root) == {"images/a.png"}
    assert tracked_files(root) == {"photos/a.png"}


@pytest.mark.usefixtures("project")
def test_a_dvc_project_within_the_root_is_refused() -> None:
    root = Path("data/mine")
    write_photos(root / "images", ("a.png", "other/b.png"))
    (root / "images/other/.dvc").mkdir()
    assert tracked_files(root) == {"images/a.png"}
    with pytest.raises(InputError, match=r"other is a DVC project of its own, which DVC does not"):
        find_photos("kaggle", root)
