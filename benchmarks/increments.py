"""The same photos with one added: what the second run costs."""

import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import Row, interleaved, seconds
from benchmarks.photos import write_photos
from benchmarks.project import make_project

_PHOTOS = 64
_STAGE = [sys.executable, "-m", "pipeline.stages.extract"]


def rows(artifacts: Path) -> list[Row]:
    """Run `extract` on photos, then with one more, the cache emptied between rounds."""
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder), artifacts)
        photos = project / "data" / "mine" / "images"
        extra = write_photos(project / "extra", 1)[0]
        write_photos(photos, _PHOTOS)

        def first() -> float:
            shutil.rmtree(project / ".cache", ignore_errors=True)
            (photos / "one_more.jpg").unlink(missing_ok=True)
            return seconds(_STAGE, project)

        def second() -> float:
            # Other bytes than the first of the drawn photos, which are the same otherwise.
            (photos / "one_more.jpg").write_bytes(extra.read_bytes() + b"1")
            return seconds(_STAGE, project)

        found = interleaved({f"{_PHOTOS} photos, s": first, "one more, s": second})
    all_, one = (statistics.median(values) for values in found.values())
    return [
        Row(
            "extract with one photo added",
            f"{one:.1f} s, where the {_PHOTOS} before it took {all_:.1f} s",
            "1 to 2 s and a photo",
        )
    ]
