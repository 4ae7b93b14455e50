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
from tests.tiers import position, tier

pytest_plugins = ["tests.support.small_extraction", "tests.support.quick_guard"]

# pytest-xdist has a worker per core, so more threads of TensorFlow would only wait for each other.
for variable in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their tier, and put the longest files first."""
    names = {item: item.nodeid.removeprefix("tests/") for item in items}
    for item, name in names.items():
        if (marker := tier(name)) != "quick":
            item.add_marker(marker)
    items.sort(key=lambda item: position(names[item]))


@pytest.fixture
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip `FitLoop._trace`, which takes a second: captions of one length have one graph only.

    tests/captioner/training/test_tracing.py shows what it is for.
    """
    from pipeline.captioner.training.fit import FitLoop  # noqa: PLC0415  (imports Keras)

    monkeypatch.setattr(FitLoop, "_trace", lambda *_: None)


# Describes an encoder that does not exist.
FEATURE_SPEC = FeatureSpec(
    encoder="MobileNet",
    input_size=32,
    weights_sha256="a" * 64,
    preprocessing="keras.applications.mobilenet.preprocess_input",
    preprocessing_sha256="b" * 64,
    graph_sha256="c" * 64,
    decoding="as it is",
    decoding_sha256="d" * 64,
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
    """Change keys of a JSON file, and keys of objects in it; write it as a new file."""
    content = json.loads(path.read_text("utf-8"))
    for key, value in values.items():
        merged = isinstance(value, dict) and isinstance(content.get(key), dict)
        content[key] = content[key] | value if merged else value
    path.unlink()
    path.write_text(json.dumps(content), "utf-8")


def copied_artifacts(artifacts: Path, folder: Path, *, with_graphs: bool = False) -> Path:
    """Copy artefacts as hard links: remove a file before you write another in its place.

    OpenVINO's graphs are left out by default, since they would replace a damaged file.
    """
    ignore = None if with_graphs else shutil.ignore_patterns(openvino_graphs.FOLDER)
    return Path(shutil.copytree(artifacts, folder, copy_function=os.link, ignore=ignore))


SLOW_MODULES = ("numpy", "PIL", "keras", "tensorflow", "jax", "torch", "openvino")


def slow_imports(code: str) -> tuple[str, list[str]]:
    """Run code in a new Python; return its output and the slow modules that it imported."""
    report = f"\nimport sys\nprint(*sorted({{*{SLOW_MODULES}}} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code + report], capture_output=True, text=True, check=True
    )
    printed, _, modules = result.stdout[:-1].rpartition("\n")
    return printed, modules.split()


def small_network(units: int = 3) -> Any:
    """Build a network that is quick to save, load and convert: (B, 4) to (B, units)."""
    # Most tests need no Keras, and importing it takes seconds.
    from pipeline.backend import keras  # noqa: PLC0415

    inputs = keras.Input((4,), name="in")
    return keras.Model(inputs, keras.layers.Dense(units, name="dense")(inputs), name="small")


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write encoder.json and encoder.weights.h5 of a random MobileNet for 32 x 32 pixels.

    Its batch normalisation amplifies: the vectors of an untrained MobileNet are about 1e-20,
    which is zero in float16 and within any tolerance.
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
    """Fill a folder, once for all workers of pytest-xdist; each has to copy it."""
    folder = factory.mktemp(name)
    if "PYTEST_XDIST_WORKER" not in os.environ:
        make(folder)
        return folder
    shared = factory.getbasetemp().parent / name
    with FileLock(f"{shared}.lock"):
        if not shared.exists():
            make(folder)
            folder.rename(shared)
    return shared


@pytest.fixture(scope="session")
def after_first_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a project after its first `dvc repro`, committed; do not change it."""
    return _made_once(tmp_path_factory, "first-run", Project.after_first_run)


@pytest.fixture(scope="module")
def project(after_first_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after its first `dvc repro`, one per module; each test leaves it up to date."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(after_first_run, folder, dirs_exist_ok=True, symlinks=True)
    return Project(folder)


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an encoder, a vocabulary and a model that belong together; do not change them."""
    from tests.support.artifacts import write_artifacts  # noqa: PLC0415  (imports Keras)

    shared = _made_once(tmp_path_factory, "artifacts", write_artifacts)
    return copied_artifacts(shared, tmp_path_factory.mktemp("run") / "artifacts")


@pytest.fixture(scope="session")
def converted(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with OpenVINO's graphs; do not change them."""
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    from pipeline.captioner.captioner import Captioner  # noqa: PLC0415

    def convert(folder: Path) -> None:
        Captioner.load(copied_artifacts(artifacts, folder / "artifacts"), 1, "openvino")

    shared = _made_once(tmp_path_factory, "converted", convert) / "artifacts"
    folder = tmp_path_factory.mktemp("run") / "artifacts"
    return copied_artifacts(shared, folder, with_graphs=True)
