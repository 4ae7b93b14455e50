"""The cost of a second extraction, with one photo more than the first."""

import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import Row, measure_interleaved, time_command
from benchmarks.photos import draw_photos
from benchmarks.project import make_project

_PHOTOS = 64
_EXTRACT = [sys.executable, "-m", "pipeline.stages.extract"]


def run(artifacts: Path) -> list[Row]:
    """Run `extract` on some photos, then with one more; the cache is emptied between rounds."""
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder), artifacts)
        images = project / "data" / "mine" / "images"
        extra = draw_photos(project / "extra", 1)[0]
        draw_photos(images, _PHOTOS)

        def extract_all() -> float:
            shutil.rmtree(project / ".cache", ignore_errors=True)
            (images / "one_more.jpg").unlink(missing_ok=True)
            return time_command(_EXTRACT, project)

        def extract_one_more() -> float:
            # Without the extra byte, the photo would be a copy of the first one.
            (images / "one_more.jpg").write_bytes(extra.read_bytes() + b"1")
            return time_command(_EXTRACT, project)

        values = measure_interleaved(
            {f"{_PHOTOS} photos, s": extract_all, "one more, s": extract_one_more}
        )
    all_s, one_s = (statistics.median(seconds) for seconds in values.values())
    return [
        Row(
            "extract with one photo added",
            f"{one_s:.1f} s; the first {_PHOTOS} photos took {all_s:.1f} s",
            "1 to 2 s and a photo",
        )
    ]
