"""A feature store of eight photos with unusual names."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.features.store import write_store
from tests.conftest import FEATURE_SPEC

# Sorted by their UTF-8 bytes, which is how Python sorts strings.
IDS = ["10.jpg", "9.jpg", "B.jpg", "a/b c.jpg", "a.jpg", "ä.jpg", "犬.jpg", "🐕.jpg"]
IDS = sorted(IDS)
IDS_UTF8 = [image_id.encode() for image_id in IDS]
PHOTOS = {image_id: f"{number:064x}" for number, image_id in enumerate(IDS)}
ALL = list(range(len(IDS)))
FAILED = {"kaputt.jpg": "damaged image: größer", "b.jpg": "empty file"}


def vectors(*shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(len(IDS), *shape)).astype(np.float32)


def write(path: Path, **changes: Any) -> Path:
    values: dict[str, Any] = {
        "feature_spec": FEATURE_SPEC,
        "photos": PHOTOS,
        "failed": FAILED,
        "rows": [(list(range(len(IDS))), vectors(6))],
    }
    write_store(path, **(values | changes))
    return path
