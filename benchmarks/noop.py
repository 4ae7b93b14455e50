"""The time of a `dvc repro` that has nothing to do, with 8,000 photos."""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import Row, measure_interleaved, time_command
from benchmarks.photos import write_flickr8k
from benchmarks.project import make_project

_PHOTOS = 8_000
_DVC = [sys.executable, "-m", "dvc"]


def run(_: Path) -> list[Row]:
    """Run the pipeline once with a tiny encoder, then repeatedly without a change."""
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(
            Path(folder),
            encoder={"name": "MobileNet", "weights": "random", "input_size": 32},
            extract={"dtype": "float32"},
            train={"epochs": 1, "units": 8, "embedding_size": 8},
            evaluate={"beam_widths": [], "max_words": 4},
        )
        write_flickr8k(project / "data" / "mine", _PHOTOS)
        subprocess.run(["git", "init", "-q"], cwd=project, check=True)  # noqa: S607
        first_s = time_command([*_DVC, "repro", "-q"], project)
        values = measure_interleaved(
            {"dvc repro, s": lambda: time_command([*_DVC, "repro"], project)}
        )
    (repeated_s,) = values.values()
    return [
        Row(
            f"dvc repro with nothing to do, {_PHOTOS} photos",
            f"{statistics.median(repeated_s):.1f} s (the first run took {first_s:.0f} s)",
            "seconds",
        )
    ]
