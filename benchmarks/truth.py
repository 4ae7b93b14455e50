"""How many captions of the drawn test scenes are true, read against what was drawn.

`python -m benchmarks.truth` lists those that are not.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from benchmarks.claims import NEEDED, describes, is_true
from benchmarks.harness import Row
from pipeline.datasets.sample.scenes import Scene, generate_scene
from pipeline.datasets.sample.wordings import caption_scene
from pipeline.params import load_params


class Judged(NamedTuple):
    """A caption, the scene it was generated for, and what `describes` says of it."""

    search: str
    caption: str
    scene: Scene
    verdict: dict[str, bool]


def rows(artifacts: Path) -> list[Row]:
    """Return a row for each search; one that says so, if it captioned other photos."""
    judged = judge(artifacts)
    searches = sorted({each.search for each in judged}, key=lambda name: (name != "greedy", name))
    if not searches:
        return [Row("true captions of drawn scenes", "none to read: other photos were captioned")]
    return [_row(name, [each for each in judged if each.search == name]) for name in searches]


def judge(artifacts: Path) -> list[Judged]:
    """Judge the predictions of the embedded data set's test split, in their order."""
    sample = load_params().sample
    scenes = {
        scene.name: scene
        for scene in (generate_scene(sample.seed, "test", index) for index in range(sample.test))
    }
    return [
        Judged(said["search"], said["caption"], scene, describes(said["caption"], scene))
        for said in pq.read_table(artifacts / "evaluation" / "predictions.parquet").to_pylist()
        if (scene := scenes.get(said["image_id"])) is not None
    ]


def _row(search: str, judged: Sequence[Judged]) -> Row:
    shares = {
        aspect: sum(each.verdict[aspect] for each in judged) / len(judged)
        for aspect in judged[0].verdict
    }
    needed = ", ".join(f"{aspect} {shares.pop(aspect):.1%}" for aspect in NEEDED)
    optional = ", ".join(f"{aspect} {share:.1%}" for aspect, share in shares.items())
    true = sum(is_true(each.verdict) for each in judged) / len(judged)
    return Row(
        f"true captions of {len(judged)} drawn scenes, {search}",
        f"{true:.1%} ({needed}; where said: {optional})",
        "90 %",
    )


if __name__ == "__main__":
    for each in judge(Path("artifacts")):
        wrong = ", ".join(aspect for aspect, right in each.verdict.items() if not right)
        if wrong:
            truth = caption_scene(each.scene)[0]
            print(f"{each.scene.name}  {each.search}  {wrong}: {each.caption}  ({truth})")
