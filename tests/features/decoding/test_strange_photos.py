import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.datasets import formats
from pipeline.datasets.photo_folders import list_photos
from pipeline.errors import InputError
from pipeline.features.encoders.engines import Engine, Pixels, Vectors
from pipeline.features.executors.local import LocalExecutor
from pipeline.features.extractor import Extractor
from pipeline.features.feature_spec import FeatureSpec
from pipeline.features.store import FeatureStore
from tests.support.photo_parts import as_png, picture
from tests.support.strange_photos import (
    MAX_PIXELS,
    NOT_THERE,
    REPAIRED,
    UNSAFE,
    StrangePhoto,
    corpus,
    write_data_set,
)

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX file names and types"),
    # Pillow warns about odd metadata; the product hides the warnings, pytest does not.
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
]
CORPUS = [] if sys.platform == "win32" else corpus()
FEATURE_SPEC = FeatureSpec(
    encoder="Corners",
    input_size=32,
    weights_sha256="a" * 64,
    preprocessing="none",
    preprocessing_sha256="b" * 64,
    graph_sha256="c" * 64,
    decoding="as it is",
    decoding_sha256="d" * 64,
    views="whole",
    pooling="average",
    scales=1,
    dtype="float32",
)


class CornersEngine(Engine):
    """Encodes a photo as the colours of its corners plus one: a zero vector would fail."""

    def __init__(self) -> None:
        super().__init__((12,), batch_size=8, chunk_size=8, threads=1)

    def _infer(self, images: Pixels) -> Vectors:
        corners = images[:, [4, 4, -5, -5], [4, -5, 4, -5]]
        return corners.reshape(len(images), 12).astype(np.float32) + 1


def extract(root: Path, max_failed_share: float) -> FeatureStore:
    Extractor(
        feature_spec=FEATURE_SPEC,
        executor=LocalExecutor(CornersEngine, workers=2, progress_seconds=3600),
        cache=root / "cache",
        max_pixels=MAX_PIXELS,
        max_failed_share=max_failed_share,
    ).extract(formats.find_photos("kaggle", root), root, root / "features.h5")
    return FeatureStore.open(root / "features.h5")


@contextmanager
def opened_files() -> Iterator[set[str]]:
    """Collect the paths of the files that this process opens, with links resolved."""
    paths: set[str] = set()
    active = True

    def on_event(event: str, arguments: tuple[object, ...]) -> None:
        if active and event == "open" and isinstance(arguments[0], str | bytes):
            paths.add(os.path.realpath(os.fsdecode(arguments[0])))

    sys.addaudithook(on_event)  # hooks cannot be removed, only deactivated
    try:
        yield paths
    finally:
        active = False


@dataclass(frozen=True)
class Extracted:
    """The corpus and the store that was extracted from it."""

    root: Path
    store: FeatureStore
    opened: set[str]

    def corners(self, image_id: str) -> npt.NDArray[np.float32]:
        return self.store.read([image_id]).reshape(4, 3) - 1


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Extracted:
    root = tmp_path_factory.mktemp("strange") / "data"
    write_data_set(root, CORPUS)
    with opened_files() as opened:
        store = extract(root, max_failed_share=1)
        formats.read_annotations("kaggle", root, split_seed=1, dev_share=0, test_share=0)
    return Extracted(root, store, opened)


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: ascii(file.image_id))
def test_each_file_is_a_correct_row_or_fails_with_its_reason(
    file: StrangePhoto, extracted: Extracted
) -> None:
    if file.name == "locked.png" and os.geteuid() == 0:
        pytest.skip("root can read everything")
    store = extracted.store
    reason = store.failed.get(file.image_id)
    if reason is None:
        assert file.may_go_unnoticed or not file.reason
        if file.corners is not None:
            difference = np.abs(extracted.corners(file.image_id) - file.corners)
            assert difference.max() <= file.tolerance
    else:
        assert file.reason
        assert re.match(file.reason, reason)
        assert reason.isprintable()


def test_every_file_is_in_the_store_or_among_the_failed(extracted: Extracted) -> None:
    ids = [file.image_id for file in CORPUS]
    assert len(ids) == len(set(ids)) > 150
    assert sorted([*extracted.store.image_ids, *extracted.store.failed]) == sorted(ids)
    extracted.store.verify()
    photos = formats.find_photos("kaggle", extracted.root)
    assert {image_id: photos[image_id].name for image_id in ids} == {
        file.image_id: Path(file.name).name for file in CORPUS
    }


def test_the_corpus_has_distinct_corner_colours() -> None:
    # Links have the colours of their targets, and two-tone pictures have few combinations.
    colours = [
        file.corners.tobytes()
        for file in CORPUS
        if file.corners is not None and "link" not in file.name and file.name != "1 bit.png"
    ]
    assert len(set(colours)) == len(colours) > 90


def test_no_file_outside_the_data_set_is_read(extracted: Extracted) -> None:
    root = Path(os.path.realpath(extracted.root))
    assert str(root / "images/plain.png") in extracted.opened
    assert str(root / "captions.txt") in extracted.opened
    outside = {root.parent / "secret.png", root.parent / "elsewhere/photo.png", Path("/dev/zero")}
    assert not {str(path) for path in outside} & extracted.opened


def flickr8k(names: list[str]) -> dict[str, str]:
    return {
        "Flickr8k.token.txt": "".join(
            f"{name}#{number}\tA photo\n" for number, name in enumerate(names)
        ),
        "Flickr_8k.trainImages.txt": "\n".join(names),
    }


def kaggle(names: list[str]) -> dict[str, str]:
    return {"captions.txt": "image,caption\n" + "".join(f"{name},A photo\n" for name in names)}


def karpathy(names: list[str]) -> dict[str, str]:
    sentences = [{"raw": "A photo"}]
    images = [{"filename": name, "split": "train", "sentences": sentences} for name in names]
    # The format has a field for the folder, too.
    images[-1] |= {"filepath": "..", "filename": "secret.png"}
    return {"dataset_x.json": json.dumps({"images": images})}


def coco(names: list[str]) -> dict[str, str]:
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    captions = [{"image_id": number, "caption": "A photo"} for number in range(len(names))]
    return {"captions_x.json": json.dumps({"images": images, "annotations": captions})}


@pytest.mark.parametrize("write", [flickr8k, kaggle, karpathy, coco])
def test_a_caption_file_names_no_photo_outside_its_folder(
    write: Callable[[list[str]], dict[str, str]], tmp_path: Path
) -> None:
    root, secret = tmp_path / "root", tmp_path / "secret.png"
    (root / "images").mkdir(parents=True)
    for path in (root / "images/plain.png", secret):
        path.write_bytes(as_png(picture(path.name)))
    absolute = str(secret.resolve())
    unsafe = [*UNSAFE, absolute, f"/{absolute}", "../../secret.png"]
    for name, text in write(["plain.png", *NOT_THERE, *REPAIRED, *unsafe]).items():
        (root / name).write_text(text, "utf-8")
    with opened_files() as opened:
        annotations = formats.read_annotations(
            write.__name__, root, split_seed=1, dev_share=0, test_share=0
        )
    assert {row.image_id for row in annotations.rows} == {"plain.png"}
    assert annotations.summary.captions_kept == 1 + len(REPAIRED)
    assert annotations.summary.dropped == {
        "unsafe_name": len(unsafe),
        "photo_not_there": len(NOT_THERE),
    }
    assert "secret.png" in str(annotations.summary.examples["unsafe_name"])
    assert os.path.realpath(absolute) not in opened


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_no_two_files_share_an_id(tmp_path: Path) -> None:
    names = [b"\xe9.png", b"\\xe9.png", b"\\\xe9.png", b"\\\\xe9.png", "\u00e9.png".encode()]
    for name in names:
        (tmp_path / os.fsdecode(name)).touch()
    photos = list_photos(tmp_path)
    assert {os.fsencode(path.name) for path in photos.values()} == set(names)
    assert all(image_id.encode() for image_id in photos)


def test_an_error_is_one_line_for_any_photo_name(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a\n\x1b[31mb.png").touch()
    with pytest.raises(InputError) as caught:
        extract(tmp_path, max_failed_share=0.5)
    assert str(caught.value).isprintable()
    assert r"the first is a\n\x1b[31mb.png: empty file" in str(caught.value)
