"""`dvc repro` with nothing to do on 8,000 photos."""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import Row, interleaved, seconds
from benchmarks.photos import flickr8k
from benchmarks.project import make_project

_PHOTOS = 8_000
_DVC = [sys.executable, "-m", "dvc"]


def rows(_: Path) -> list[Row]:
    """Run the pipeline once with a tiny encoder, then again and again."""
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(
            Path(folder),
            encoder={"name": "MobileNet", "weights": "random", "input_size": 32},
            extract={"dtype": "float32"},
            train={"epochs": 1, "units": 8, "embedding_size": 8},
            evaluate={"beam_widths": [], "max_words": 4},
        )
        flickr8k(project / "data" / "mine", _PHOTOS)
        subprocess.run(["git", "init", "-q"], cwd=project, check=True)  # noqa: S607
        first = seconds([*_DVC, "repro", "-q"], project)
        found = interleaved({"dvc repro, s": lambda: seconds([*_DVC, "repro"], project)})
    (again,) = found.values()
    return [
        Row(
            f"dvc repro with nothing to do, {_PHOTOS} photos",
            f"{statistics.median(again):.1f} s (the first run {first:.0f} s)",
            "seconds",
        )
    ]
