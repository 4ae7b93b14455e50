import re
from pathlib import Path
from types import ModuleType

import pytest
from ruamel.yaml import YAML

from pipeline.params import Params, load_params
from pipeline.size_defaults import MANY_CAPTIONS, SIZE_DEFAULTS, fill_nulls
from pipeline.stages import evaluate, tokenize, train
from tests.support.captioner import CAPTIONS, make_store, make_vocabulary, write_captions
from tests.support.closure import ROOT

VALUES = YAML(typ="safe").load((ROOT / "params.yaml").read_text("utf-8"))
KEYS = [(section, key) for section, keys in SIZE_DEFAULTS.items() for key in keys]


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_a_null_is_replaced_by_the_value_for_the_size(section: str, key: str) -> None:
    assert VALUES[section][key] is None
    few, many = SIZE_DEFAULTS[section][key]
    for captions, expected in (0, few), (MANY_CAPTIONS - 1, few), (MANY_CAPTIONS, many):
        params = load_params(ROOT / "params.yaml", captions)
        assert getattr(getattr(params, section), key) == expected


def test_a_value_that_is_set_is_kept() -> None:
    values = {"train": {"units": 7, "epochs": None}, "tokenize": {"min_count": 1}, "other": 3}
    filled = fill_nulls(values, MANY_CAPTIONS)
    assert filled["train"] == {"units": 7, "epochs": SIZE_DEFAULTS["train"]["epochs"][1]}
    assert (filled["tokenize"], filled["other"]) == ({"min_count": 1}, 3)
    assert values["train"] == {"units": 7, "epochs": None}


@pytest.mark.parametrize("values", [None, [], "text", {"train": None}, {"train": [1]}, {}])
def test_what_is_no_section_is_left_to_the_validation(values: object) -> None:
    assert fill_nulls(values, MANY_CAPTIONS) == values


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_the_description_names_both_values(section: str, key: str) -> None:
    model = Params.model_fields[section].annotation
    assert model is not None
    description = " ".join((model.model_fields[key].description or "").split())
    few, many = (
        re.escape(f"{value:g}" if isinstance(value, float) else str(value))
        for value in SIZE_DEFAULTS[section][key]
    )
    assert re.search(rf"Null: {few}, and {many} from 10,000 training captions on\.", description)


@pytest.mark.parametrize("stage", [tokenize, train, evaluate])
def test_stages_count_the_training_captions(
    stage: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StoppedError(Exception):
        pass

    def stop(**options: int) -> Params:
        assert options == {"training_captions": len(CAPTIONS)}
        raise StoppedError

    monkeypatch.chdir(tmp_path)
    artifacts = tmp_path / "artifacts"
    write_captions(artifacts / "captions.parquet", {"train": CAPTIONS, "dev": [("d.jpg", "snow")]})
    make_store(artifacts / "features.h5")
    make_vocabulary().save(artifacts / "vocabulary.json")
    monkeypatch.setattr(stage, "load_params", stop)
    with pytest.raises(StoppedError):
        stage.main()
