import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from pipeline.features.feature_spec import FeatureSpec
from pipeline.storage import openvino_graphs
from tests.support.project import Project

pytest_plugins = ["tests.support.small_extraction"]  # its fixtures

# pytest-xdist has a worker for each core: more threads of TensorFlow would compete for the cores.
for variable in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# Files to run first, in this order, so that no worker starts a long file when the other is done.
# Those that use the `project` are spread out, because the first of them creates it.
LONG = [
    "test_pipeline.py",
    "test_backends.py",
    "test_random_kills.py",
    "test_readme.py",
    "test_crash.py",
    "test_two_writers.py",
    "test_damaged_shards.py",
    "test_disk_faults.py",
    "test_train.py",
    "test_fit.py",
    "test_captioner.py",
    "test_image_artifacts.py",
    "test_openvino.py",
    "test_engines.py",
    "test_status.py",
    "test_ray.py",
    "test_kill_points.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files of `LONG` first, for `--dist loadfile --no-loadscope-reorder`."""
    positions = {name: position for position, name in enumerate(LONG)}
    items.sort(key=lambda item: positions.get(item.path.name, len(LONG)))


# A valid spec of features; no encoder belongs to it.
FEATURE_SPEC = FeatureSpec(
    encoder="MobileNet",
    input_size=32,
    weights_sha256="a" * 64,
    preprocessing="keras.applications.mobilenet.preprocess_input",
    preprocessing_sha256="b" * 64,
    decoding="as it is",
    views="whole",
    pooling="average",
    scales=1,
    dtype="float32",
)


def make_photo(width: int = 48, height: int = 40, seed: int = 0) -> Image.Image:
    """Draw a photo: two gradients and a little noise, the same for the same seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    down, right = y * 200 // max(height - 1, 1), x * 200 // max(width - 1, 1)
    pixels = np.stack([right, down, np.full_like(x, 40 + 7 * seed % 160)], axis=-1)
    noise = rng.integers(0, 16, pixels.shape)
    return Image.fromarray((pixels + noise).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return an image as the bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def change_json(path: Path, values: Mapping[str, Any]) -> None:
    """Change keys of a JSON file, and keys of objects in it; under another inode."""
    existing = json.loads(path.read_text("utf-8"))
    for key, value in values.items():
        merged = isinstance(value, dict) and isinstance(existing.get(key), dict)
        existing[key] = existing[key] | value if merged else value
    path.unlink()
    path.write_text(json.dumps(existing), "utf-8")


def copied_artifacts(artifacts: Path, folder: Path, *, with_graphs: bool = False) -> Path:
    """Copy artifacts as hard links: remove a file before you write another in its place.

    Without OpenVINO graphs, which would be used instead of files that a test damages.
    """
    ignore = None if with_graphs else shutil.ignore_patterns(openvino_graphs.FOLDER)
    return Path(shutil.copytree(artifacts, folder, copy_function=os.link, ignore=ignore))


SLOW_MODULES = ("numpy", "PIL", "keras", "tensorflow", "jax", "torch", "openvino")


def slow_imports(code: str) -> tuple[str, list[str]]:
    """Run code in a fresh Python; return what it printed and which slow modules it imported."""
    report = f"\nimport sys\nprint(*sorted({{*{SLOW_MODULES}}} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code + report], capture_output=True, text=True, check=True
    )
    printed, _, modules = result.stdout[:-1].rpartition("\n")
    return printed, modules.split()


def small_network(units: int = 3) -> Any:
    """Build a network that is quick to save, load and convert: (B, 4) to (B, units)."""
    # Most tests need no Keras, whose import takes seconds.
    from pipeline.backend import keras  # noqa: PLC0415

    inputs = keras.Input((4,), name="in")
    return keras.Model(inputs, keras.layers.Dense(units, name="dense")(inputs), name="small")


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write encoder.json and encoder.weights.h5 of a random MobileNet for 32 x 32 pixels.

    Its batch normalisation is made to amplify: the vectors of an untrained MobileNet are
    of the order of 1e-20, all zeros to a float16 and all alike to any tolerance.
    """
    from pipeline.backend import keras  # noqa: PLC0415
    from pipeline.features.encoders import pretrained  # noqa: PLC0415
    from pipeline.features.encoders.networks import make_encoder_config  # noqa: PLC0415
    from pipeline.files import write_json  # noqa: PLC0415
    from pipeline.storage import keras_weights  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("encoder")
    network, source = pretrained.fetch_encoder("MobileNet", "random", 32)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_variance.assign(np.full(layer.moving_variance.shape, 0.02, np.float32))
    keras_weights.save(network, folder / "encoder.weights.h5")
    description = make_encoder_config("MobileNet", 32, source, keras_weights.digest(network))
    write_json(folder / "encoder.json", asdict(description))
    return folder


def _made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Fill a folder, once for all of pytest-xdist's workers; each has to take a copy of it."""
    made = factory.mktemp(name)
    if "PYTEST_XDIST_WORKER" not in os.environ:
        make(made)
        return made
    shared = factory.getbasetemp().parent / name
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            make(made)
            made.rename(shared)
    return shared


@pytest.fixture(scope="session")
def after_first_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a project after its first `dvc repro`, committed; not to be changed."""
    return _made_once(tmp_path_factory, "first-run", Project.after_first_run)


@pytest.fixture(scope="module")
def project(after_first_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after its first `dvc repro`, a module's own; each test leaves it up to date."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(after_first_run, folder, dirs_exist_ok=True, symlinks=True)
    return Project(folder)


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an encoder, a vocabulary and a model that belong together; not to be changed."""
    from tests.support.artifacts import write_artifacts  # noqa: PLC0415  (imports Keras)

    made = _made_once(tmp_path_factory, "learned", write_artifacts)
    return copied_artifacts(made, tmp_path_factory.mktemp("run") / "artifacts")


@pytest.fixture(scope="session")
def converted(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with graphs in OpenVINO's form; not to be changed."""
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    from pipeline.captioner.captioner import Captioner  # noqa: PLC0415

    def convert(folder: Path) -> None:
        Captioner.load(copied_artifacts(artifacts, folder / "artifacts"), 1, "openvino")

    made = _made_once(tmp_path_factory, "converted", convert) / "artifacts"
    folder = tmp_path_factory.mktemp("run") / "artifacts"
    return copied_artifacts(made, folder, with_graphs=True)
