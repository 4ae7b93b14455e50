"""Commands from a cold shell: the caption of one photo, and `--help`."""

import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import (
    Row,
    caption_command,
    measure_interleaved,
    median_ratio,
    time_command,
)
from benchmarks.photos import draw_photos


def run(artifacts: Path) -> list[Row]:
    """Compare `caption image` with the notebook's way, and time `caption --help`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (photo,) = draw_photos(folder, 1)
        command = caption_command("image", "--artifacts", str(artifacts.absolute()), str(photo))
        notebook = [sys.executable, "-m", "benchmarks.notebook", str(artifacts), str(photo)]
        time_command(command, folder)  # converts the graphs, if no earlier run has
        values = measure_interleaved(
            {
                "caption image, s": lambda: time_command(command, folder),
                "notebook, s": lambda: time_command(notebook, Path.cwd()),
                "caption --help, s": lambda: time_command(caption_command("--help"), folder),
            }
        )
    command_s, notebook_s, help_s = values.values()
    median = statistics.median
    return [
        Row(
            "one photo from a cold shell",
            f"{median(command_s):.2f} s, the notebook's way {median(notebook_s):.1f} s, "
            f"x {median_ratio(notebook_s, command_s):.1f} as fast",
            "x 3",
        ),
        Row("caption --help", f"{median(help_s):.2f} s", "0.33 s"),
    ]
