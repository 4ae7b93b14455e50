"""The share of captions of the drawn test scenes that are true, checked against the scenes.

`python -m benchmarks.truth` lists those that are not.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from benchmarks.claims import REQUIRED, check_claims, is_true
from benchmarks.harness import Row
from pipeline.datasets.sample.scenes import Scene, generate_scene
from pipeline.datasets.sample.wordings import caption_scene
from pipeline.params import load_params


class CheckedCaption(NamedTuple):
    """A caption, the scene that it describes, and the verdict of `check_claims`."""

    search: str
    caption: str
    scene: Scene
    verdict: dict[str, bool]


def run(artifacts: Path) -> list[Row]:
    """Return a row for each search, or a single row if none captioned the drawn scenes."""
    checked = check_predictions(artifacts)
    searches = sorted({each.search for each in checked}, key=lambda name: (name != "greedy", name))
    if not searches:
        return [Row("true captions of drawn scenes", "none: the predictions are of other photos")]
    return [_make_row(name, [each for each in checked if each.search == name]) for name in searches]


def check_predictions(artifacts: Path) -> list[CheckedCaption]:
    """Check the predictions for the embedded data set's test split, in their order."""
    sample = load_params().sample
    scenes = {
        scene.name: scene
        for scene in (generate_scene(sample.seed, "test", index) for index in range(sample.test))
    }
    predictions = pq.read_table(artifacts / "evaluation" / "predictions.parquet").to_pylist()
    return [
        CheckedCaption(row["search"], row["caption"], scene, check_claims(row["caption"], scene))
        for row in predictions
        if (scene := scenes.get(row["image_id"])) is not None
    ]


def _make_row(search: str, checked: Sequence[CheckedCaption]) -> Row:
    shares = {
        aspect: sum(each.verdict[aspect] for each in checked) / len(checked)
        for aspect in checked[0].verdict
    }
    required = ", ".join(f"{aspect} {shares.pop(aspect):.1%}" for aspect in REQUIRED)
    optional = ", ".join(f"{aspect} {share:.1%}" for aspect, share in shares.items())
    true = sum(is_true(each.verdict) for each in checked) / len(checked)
    return Row(
        f"true captions of {len(checked)} drawn scenes, {search}",
        f"{true:.1%} ({required}; if mentioned: {optional})",
        "90 %",
    )


if __name__ == "__main__":
    for each in check_predictions(Path("artifacts")):
        wrong = ", ".join(aspect for aspect, right in each.verdict.items() if not right)
        if wrong:
            reference = caption_scene(each.scene)[0]
            print(f"{each.scene.name}  {each.search}  {wrong}: {each.caption}  ({reference})")
