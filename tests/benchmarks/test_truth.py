from pathlib import Path

import pytest

from benchmarks import truth
from pipeline.datasets.sample.scenes import generate_scene
from pipeline.datasets.sample.wordings import caption_scene
from pipeline.params import load_params
from pipeline.reporting.predictions import Prediction, write_predictions
from tests.support.project import ROOT


def test_each_search_has_its_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    scenes = [generate_scene(load_params().sample.seed, "test", index) for index in range(4)]
    references = [caption_scene(scene)[1].lower().removesuffix(" .") for scene in scenes]
    captions_by_search = {"greedy": [*references[:3], "a dog"], "beam_3": references}
    predictions = [
        Prediction(scene.name, search, caption, -1.0, finished=True)
        for search, texts in captions_by_search.items()
        for scene, caption in zip(scenes, texts, strict=True)
    ]
    write_predictions(tmp_path / "evaluation" / "predictions.parquet", predictions)
    greedy, beam = truth.run(tmp_path)
    assert greedy.name.endswith("4 drawn scenes, greedy")
    assert greedy.result.startswith("75.0% (count 75.0%, ")
    assert beam.result.startswith("100.0% (count 100.0%, ")


def test_captions_of_other_photos_are_not_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    other = [Prediction("1.jpg", "greedy", "a dog", -1.0, finished=True)]
    write_predictions(tmp_path / "evaluation" / "predictions.parquet", other)
    (row,) = truth.run(tmp_path)
    assert "other photos" in row.result
