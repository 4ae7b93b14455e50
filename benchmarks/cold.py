"""From a cold shell: one photo's caption, and commands that compute nothing."""

import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import Row, caption, interleaved, ratio, seconds
from benchmarks.photos import write_photos


def rows(artifacts: Path) -> list[Row]:
    """Compare `caption image` with the notebook's way, and time `caption --help`."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (photo,) = write_photos(here, 1)
        ours = [*caption("image", "--artifacts", str(artifacts.absolute())), str(photo)]
        theirs = [sys.executable, "-m", "benchmarks.notebook", str(artifacts), str(photo)]
        seconds(ours, here)  # converts the graphs where no run has yet
        found = interleaved(
            {
                "caption image, s": lambda: seconds(ours, here),
                "notebook, s": lambda: seconds(theirs, Path.cwd()),
                "caption --help, s": lambda: seconds(caption("--help"), here),
            }
        )
    quick, slow, help_ = found.values()
    return [
        Row(
            "one photo from a cold shell",
            f"{statistics.median(quick):.2f} s, the notebook's way {statistics.median(slow):.1f} s"
            f", x {ratio(slow, quick):.1f} as fast",
            "x 3",
        ),
        Row("caption --help", f"{statistics.median(help_):.2f} s", "0.33 s"),
    ]
