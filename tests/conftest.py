import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from pipeline.features.encoding import Encoding
from tests.project import Project

# pytest-xdist has a worker for each core: threads of TensorFlow beside them only wait in turn.
for variable in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# How vectors might have been made; nothing is there to make them with.
ENCODING = Encoding(
    encoder="MobileNet",
    input_size=32,
    weights_sha256="a" * 64,
    preprocessing="keras.applications.mobilenet.preprocess_input",
    preprocessing_sha256="b" * 64,
    decoding="as it is",
    views="whole",
    pooling="average",
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
    there = json.loads(path.read_text("utf-8"))
    for key, value in values.items():
        merged = isinstance(value, dict) and isinstance(there.get(key), dict)
        there[key] = there[key] | value if merged else value
    path.unlink()
    path.write_text(json.dumps(there), "utf-8")


def copied_artifacts(artifacts: Path, folder: Path, *, with_graphs: bool = False) -> Path:
    """Copy artefacts by links: a file has to be removed before another is written.

    Graphs in OpenVINO's form would stand in for what is spoilt.
    """
    ignore = None if with_graphs else shutil.ignore_patterns(".graphs")
    return Path(shutil.copytree(artifacts, folder, copy_function=os.link, ignore=ignore))


SLOW_MODULES = ("numpy", "PIL", "keras", "tensorflow", "jax", "torch", "openvino")


def slow_imports(code: str) -> tuple[str, list[str]]:
    """Run code in a fresh Python; return what it printed and which slow modules it imported."""
    ask = f"\nimport sys\nprint(*sorted({{*{SLOW_MODULES}}} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code + ask], capture_output=True, text=True, check=True
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
    from pipeline.features import weights  # noqa: PLC0415
    from pipeline.features.encoders import describe_encoder  # noqa: PLC0415
    from pipeline.files import write_json  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("encoder")
    network, source = weights.fetch("MobileNet", "random", 32)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_variance.assign(np.full(layer.moving_variance.shape, 0.02, np.float32))
    weights.save(network, folder / "encoder.weights.h5")
    description = describe_encoder("MobileNet", 32, source, weights.digest(network))
    write_json(folder / "encoder.json", asdict(description))
    return folder


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after its first `dvc repro`, committed; each test leaves it up to date."""
    folder = tmp_path_factory.mktemp("project")
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return Project.after_first_run(folder)
    # Half a minute's work, done by the first of pytest-xdist's workers that comes here.
    first = tmp_path_factory.getbasetemp().parent / "project"
    with FileLock(f"{first}.lock"):
        if not (first / "first-run.txt").exists():
            first.mkdir()
            Project.after_first_run(first)
    shutil.copytree(first, folder, dirs_exist_ok=True, symlinks=True)
    return Project(folder)


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an encoder, a vocabulary and a model that belong together; not to be changed."""
    from tests.artifacts_fixture import write_artifacts  # noqa: PLC0415  (imports Keras)

    folder = tmp_path_factory.mktemp("artifacts")
    write_artifacts(folder)
    return folder
