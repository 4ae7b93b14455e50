import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from ruamel.yaml import YAML

from pipeline.errors import InputError
from pipeline.params import Params, load_params
from pipeline.size_defaults import fill_nulls

PARAMS = Path(__file__).parents[1] / "params.yaml"
Values = dict[str, Any]
Change = Callable[[Values], object]


def read_values() -> Values:
    return YAML(typ="safe").load(PARAMS.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def error_message(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_params(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def error_after(tmp_path: Path, change: Change) -> str:
    changed = read_values()
    change(changed)
    path = tmp_path / "params.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(changed, file)
    return error_message(path)


def test_the_params_file_of_the_repository_is_valid() -> None:
    params = load_params(PARAMS)
    assert params.model_dump() == fill_nulls(read_values(), 0)
    assert params.dataset.root == "data/sample"


def test_the_file_is_read_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"params\.yaml is not there: .*git checkout params\.yaml"):
        load_params()
    (tmp_path / "params.yaml").write_bytes(PARAMS.read_bytes())
    assert load_params() == load_params(PARAMS)


CHANGES: list[tuple[Change, str]] = [
    (lambda v: v["train"].update(unitz=3), "train.unitz: unknown key"),
    (lambda v: v.update(trian={}), "trian: unknown key"),
    (lambda v: v["train"].pop("units"), "train.units: missing key"),
    (lambda v: v.pop("clean"), "clean: missing key"),
    (lambda v: v.update(clean=None), "clean: "),
    (lambda v: v["train"].update(units="256"), "train.units: Input should be a valid integer"),
    (lambda v: v["train"].update(units=256.0), "train.units: "),
    (lambda v: v["train"].update(units=True), "train.units: "),
    (lambda v: v["train"].update(keep_every_epoch=1), "train.keep_every_epoch: "),
    (lambda v: v["train"].update(learning_rate=0), "train.learning_rate: "),
    (lambda v: v["train"].update(dropout=1.0), "train.dropout: "),
    (lambda v: v["train"].update(dropout=float("nan")), "train.dropout: "),
    (lambda v: v["sample"].update(seed=-1), "sample.seed: "),
    (lambda v: v["extract"].update(dtype="float8"), "extract.dtype: Input should be 'float16' or"),
    (lambda v: v["dataset"].update(format="coc"), "dataset.format: Input should be 'flickr8k', "),
    (lambda v: v["dataset"].update(root=""), "dataset.root: "),
    (lambda v: v["encoder"].update(input_size=31), "encoder.input_size: "),
    (lambda v: v["runtime"].update(workers=0), "runtime.workers: "),
    (lambda v: v["runtime"].update(workers="all"), "runtime.workers: "),
    (lambda v: v["runtime"].update(engine="onnx"), "runtime.engine: Input should be 'auto', "),
    (lambda v: v["evaluate"].update(beam_widths=[3, 1]), "evaluate.beam_widths.1: "),
    (lambda v: v["clean"].update(dev_share=0.5, test_share=0.5), "clean: "),
    (lambda v: v["train"].update(seeds=[]), "train.seeds: List should have at least 1 item"),
    (lambda v: v["train"].update(seeds=2026), "train.seeds: "),
    (lambda v: v["train"].update(seeds=[1, -2]), "train.seeds.1: "),
    (lambda v: v["train"].update(seeds=[1, 2, 1]), "train.seeds: Value error, two seeds are equal"),
    (lambda v: v["extract"].update(views="five"), "extract.views: Input should be 'whole', "),
    (lambda v: v["train"].update(schedule="linear"), "train.schedule: Input should be 'constant' "),
    (lambda v: v["train"].update(select="bleu"), "train.select: Input should be 'cider' or "),
    (lambda v: v["train"].update(word_vectors="glove"), "train.word_vectors: Input should be "),
    (lambda v: v["train"].update(output_bias="words"), "train.output_bias: Input should be "),
    (lambda v: v["train"].update(feature_norm="l1"), "train.feature_norm: Input should be "),
    (lambda v: v["train"].update(feature_noise=-0.1), "train.feature_noise: "),
    (lambda v: v["train"].update(feature_noise=1.5), "train.feature_noise: "),
    (lambda v: v["train"].update(units=1_000_000), "train.units: "),
    (lambda v: v["train"].update(decoder="gru"), "train.decoder: Input should be 'merge', "),
    (lambda v: v["train"].update(weight_decay=1.0), "train.weight_decay: "),
    (lambda v: v["train"].update(clip_norm=0), "train.clip_norm: "),
    (lambda v: v["train"].update(label_smoothing=1.0), "train.label_smoothing: "),
    (lambda v: v["train"].update(condition_dropout=1.0), "train.condition_dropout: "),
    (lambda v: v["evaluate"].update(guidance=-0.1), "evaluate.guidance: "),
    (lambda v: v["train"].update(scheduled_sampling=-0.5), "train.scheduled_sampling: "),
    (lambda v: v["train"].update(tied_embeddings="yes"), "train.tied_embeddings: "),
    (lambda v: v["self_critical"].update(samples=1), "self_critical.samples: "),
    (lambda v: v["self_critical"].update(epochs=-1), "self_critical.epochs: "),
    (lambda v: v["evaluate"].update(word_logit_bias=-0.1), "evaluate.word_logit_bias: "),
    (lambda v: v["evaluate"].update(word_rerank_weight=101), "evaluate.word_rerank_weight: "),
    (lambda v: v["detector"].update(ridge_alpha=0), "detector.ridge_alpha: "),
    (lambda v: v["detector"].update(ridge_alpha=float("inf")), "detector.ridge_alpha: "),
    (lambda v: v["train"].update(learning_rate=float("nan")), "train.learning_rate: "),
    (lambda v: v["evaluate"].update(ensemble=2), "evaluate.ensemble: "),
]


@pytest.mark.parametrize(("change", "problem"), CHANGES)
def test_an_invalid_key_is_named(tmp_path: Path, change: Change, problem: str) -> None:
    assert f": {problem}" in error_after(tmp_path, change)


def test_shares_that_leave_no_training_photos_are_named(tmp_path: Path) -> None:
    message = error_after(tmp_path, lambda v: v["clean"].update(dev_share=0.9, test_share=0.1))
    assert "dev_share and test_share leave no photo to train on" in message


def test_an_invalid_value_is_shown(tmp_path: Path) -> None:
    message = error_after(tmp_path, lambda v: v["tokenize"].update(min_count="a\nb"))
    assert message.endswith("but it is 'a\\nb'")


def test_all_problems_are_shown_at_once(tmp_path: Path) -> None:
    def change(changed: Values) -> None:
        del changed["train"]["units"]
        changed["tokenize"]["min_count"] = 0

    message = error_after(tmp_path, change)
    assert "train.units: missing key" in message
    assert "tokenize.min_count: " in message


def keys_of(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys += keys_of(kind, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def test_every_number_has_bounds(tmp_path: Path) -> None:
    numbers = {
        key
        for key in keys_of(Params)
        for value in [fill_nulls(read_values(), 0)[key.split(".")[0]][key.split(".")[1]]]
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    numbers |= {"encoder.input_size", "train.clip_norm", "runtime.workers", "runtime.ray_actors"}
    assert len(numbers) > 40
    for value in (10**12, -1):
        changed = read_values()
        for key in numbers:
            section, name = key.split(".")
            changed[section][name] = value
        path = tmp_path / "params.yaml"
        with path.open("w", encoding="utf-8") as file:
            YAML(typ="safe").dump(changed, file)
        message = error_message(path)
        assert [key for key in numbers if f"{key}: Input should be" not in message] == []


def test_a_decoder_that_the_pooling_does_not_allow_is_refused_at_once(tmp_path: Path) -> None:
    def change(values: Values) -> None:
        values["train"]["decoder"] = "attention"
        values["extract"]["pooling"] = "average"

    message = error_after(tmp_path, change)
    assert "train.decoder attention needs positions to attend to: set extract.pooling" in message
    assert "but it is" not in message  # the whole file


def test_every_section_and_key_has_a_description() -> None:
    for name, section in Params.model_fields.items():
        model = section.annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        assert model.__doc__, name
        assert [key for key, field in model.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("key", keys_of(Params))
def test_every_key_is_required(tmp_path: Path, key: str) -> None:
    section, name = key.split(".")
    assert f"{key}: missing key" in error_after(tmp_path, lambda v: v[section].pop(name))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("train: {units: 3\n", "cannot be read as YAML"),
        ("a: 1\n\tb: 2\n", "cannot be read as YAML"),
        ("train: 1\ntrain: 2\n", 'duplicate key "train"'),
        ("train: !!python/object/apply:os.getcwd []\n", "cannot be read as YAML"),
        ("dataset: 2001-99-99\n", "cannot be read as YAML"),
        ("train: !!int three\n", "cannot be read as YAML"),
        ("train: !!bool maybe\n", "cannot be read as YAML"),
        ("[" * 500, "cannot be read as YAML"),
        ("--- 1\n--- 2\n", "cannot be read as YAML"),
        ("", "the file: "),
        ("- 1\n", "the file: "),
    ],
)
def test_the_error_for_invalid_yaml_is_one_line(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    assert problem in error_message(path)


def test_the_error_for_other_bytes_and_folders_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read as YAML" in error_message(path)
    assert "cannot be read as YAML" in error_message(tmp_path)


def test_the_number_of_workers_may_be_null(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    text = PARAMS.read_text(encoding="utf-8")
    workers = []
    for value in ("null", "3"):
        path.write_text(re.sub(r"workers: \S+", f"workers: {value}", text), encoding="utf-8")
        workers.append(load_params(path).runtime.workers)
    assert workers == [None, 3]


def test_numbers_are_read_as_dvc_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    text = PARAMS.read_text(encoding="utf-8")
    text = re.sub(r"learning_rate: \S+", "learning_rate: 2e-3", text)
    path.write_text(text, encoding="utf-8")
    assert load_params(path).train.learning_rate == 0.002
