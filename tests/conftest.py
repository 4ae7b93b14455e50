import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.project import Project


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


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write encoder.json and encoder.weights.h5 of a random MobileNet for 32 x 32 pixels.

    Its batch normalisation is made to amplify: the vectors of an untrained MobileNet are
    of the order of 1e-20, all zeros to a float16 and all alike to any tolerance.
    """
    # Most tests need no Keras, whose import takes seconds.
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
    return Project.after_first_run(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an encoder, a vocabulary and a model that belong together; not to be changed."""
    from tests.artifacts_fixture import write_artifacts  # noqa: PLC0415  (imports Keras)

    folder = tmp_path_factory.mktemp("artifacts")
    write_artifacts(folder)
    return folder
