import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.captioner.captioner import Caption, Captioner
from pipeline.captioner.generation.settings import SearchSettings
from pipeline.errors import InputError
from pipeline.features.encoders import engines
from pipeline.features.encoders.engines import Engine
from pipeline.storage import openvino_graphs
from tests.conftest import change_json, copied_artifacts, encoded, slow_imports
from tests.support.artifacts import LEARNED, SETTINGS, drawn, write_photos
from tests.support.cli import captions, failed, image, succeeded

PROGRAM = [sys.executable, "-c", "from pipeline.cli.main import main; main(prog_name='caption')"]


@pytest.fixture
def folder(artifacts: Path, tmp_path: Path) -> Path:
    return copied_artifacts(artifacts, tmp_path / "copy")


@pytest.mark.parametrize(("count", "batch_size"), [(1, 1), (5, 5), (16, 16), (100, 16)])
def test_the_batch_fits_the_number_of_photos(
    monkeypatch: pytest.MonkeyPatch, count: int, batch_size: int
) -> None:
    def load(*arguments: object, **overrides: object) -> Captioner:
        raise InputError(f"called with {arguments}, {overrides}")

    monkeypatch.setattr(Captioner, "load", staticmethod(load))
    result = image("--artifacts", "folder", *["a.jpg"] * count)
    failed(result, f"Error: called with {(Path('folder'), batch_size)}, {{}}")


def missing_message(folder: Path, names: str, stages: str) -> str:
    return (
        f"Error: {folder} has no {names}: run `dvc repro {stages}`, in a clone `dvc pull`, or name "
        "the folder of a finished run"
    )


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("vocabulary.json", "tokenize"),
        ("detector.h5", "detector"),
        ("model/model.json", "train"),
        ("encoder.json", "encoder"),
        ("encoder.weights.h5", "encoder"),
        ("search.json", "evaluate"),
    ],
)
def test_a_missing_artifact_is_one_line_with_the_command_that_makes_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, stage: str
) -> None:
    (folder / name).unlink()
    photos = write_photos(folder / "photos", 1)
    monkeypatch.chdir(folder.parent)
    # The absolute path, even of a relative folder.
    for argument in (folder, folder.name):
        result = image("--artifacts", argument, *photos)
        failed(result, missing_message(folder, name, stage))
        assert result.stdout == ""


def test_a_model_without_its_weights_names_its_stage(folder: Path) -> None:
    path = folder / "model/seed_2026.weights.h5"
    path.unlink()
    result = image("--artifacts", folder, *write_photos(folder / "photos", 1))
    failed(result, f"Error: {path} is not there: run `dvc repro train`")


def test_neighbours_are_needed_only_if_they_count(
    folder: Path, searches: list[tuple[SearchSettings, int]]
) -> None:
    path = folder / "neighbours.h5"
    path.unlink()
    photos = write_photos(folder / "photos", 1)
    failed(
        image("--artifacts", folder, *photos),
        f"Error: {path} is not there: run `dvc repro detector`",
    )
    succeeded(image("--artifacts", folder, "--neighbour-rerank-weight", "0", *photos))
    assert searches == [(replace(SETTINGS, neighbour_rerank_weight=0.0), SETTINGS.beam_width)]


def test_before_the_first_run_all_files_and_stages_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    result = image(*write_photos(Path(), 1))
    names = (
        "encoder.json, encoder.weights.h5, vocabulary.json, detector.h5, model/model.json, "
        "search.json"
    )
    stages = "encoder tokenize detector train evaluate"
    failed(result, missing_message(tmp_path / "artifacts", names, stages))


@pytest.mark.parametrize(
    "different", [{"input_size": 64}, {"weights_sha256": "0" * 64}, {"encoder": "MobileNetV2"}]
)
def test_an_encoder_that_the_model_was_not_trained_with_is_refused(
    folder: Path, different: dict[str, Any]
) -> None:
    change_json(folder / "encoder.json", different)
    result = image("--artifacts", folder, *write_photos(folder / "photos", 1))
    (name,) = different
    assert result.exit_code == 1
    assert re.fullmatch(
        rf"Error: {re.escape(str(folder / 'encoder.json'))} and the model do not belong together "
        rf"\(other {name}\): run `dvc repro`\n",
        result.stderr,
    )


def test_encoder_weights_other_than_those_of_encoder_json_are_refused(folder: Path) -> None:
    path = folder / "encoder.weights.h5"
    data = bytearray(path.read_bytes())
    # A number in the middle of the file is a weight.
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)
    result = image("--artifacts", folder, *write_photos(folder / "photos", 1))
    failed(
        result,
        f"Error: {path} has other weights than encoder.json records: run `dvc repro encoder`",
    )


@pytest.mark.parametrize("keep", [0, 100, 1_000_000], ids=["empty", "header", "part"])
def test_damaged_encoder_weights_are_refused(folder: Path, keep: int) -> None:
    path = folder / "encoder.weights.h5"
    data = path.read_bytes()[:keep]
    path.unlink()
    path.write_bytes(data)
    result = image("--artifacts", folder, *write_photos(folder / "photos", 1))
    (line,) = result.stderr.splitlines()
    assert result.exit_code == 1
    assert line.startswith(f"Error: {path} is not a readable HDF5 file (")
    assert line.endswith("): run `dvc repro encoder`")


# Search settings.


@pytest.fixture(scope="module")
def engine(artifacts: Path) -> Engine:
    return Captioner.load(artifacts, 1, "keras").engine


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> list[tuple[SearchSettings, int]]:
    """Return a list to which the settings and the beam width of every search are added."""
    calls: list[tuple[SearchSettings, int]] = []
    caption = Captioner.caption

    def record(self: Captioner, images: list[Any], beam_width: int) -> list[list[Caption]]:
        calls.append((self.settings, beam_width))
        return caption(self, images, beam_width)

    monkeypatch.setattr(Captioner, "caption", record)
    monkeypatch.setattr("pipeline.captioner.captioner.load_engine", lambda *_: engine)
    return calls


IN_FILE = SearchSettings(
    beam_width=1,
    max_words=2,
    no_repeat_ngram_size=0,
    guidance=0.0,
    word_logit_bias=0.0,
    word_rerank_weight=1.0,
    neighbour_rerank_weight=0.0,
    ensemble=False,
)


def write_settings(folder: Path, settings: SearchSettings) -> None:
    (folder / "search.json").unlink()  # a link to a file of other tests
    settings.write(folder / "search.json")


def test_the_settings_of_search_json_are_used(
    folder: Path, searches: list[tuple[SearchSettings, int]]
) -> None:
    photos = write_photos(folder / "photos", 1)
    result = image("--artifacts", folder, *photos)
    succeeded(result)
    assert captions(result) == [LEARNED[0]]
    write_settings(folder, IN_FILE)
    result = image("--artifacts", folder, *photos)
    succeeded(result)
    assert captions(result) == [" ".join(LEARNED[0].split()[:2])]
    assert searches == [(SETTINGS, SETTINGS.beam_width), (IN_FILE, IN_FILE.beam_width)]


def test_params_yaml_does_not_change_the_search(
    folder: Path, searches: list[tuple[SearchSettings, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    Path("params.yaml").write_text("evaluate: {beam_widths: [7], guidance: 9, max_words: 1}\n")
    result = image("--artifacts", folder, *write_photos(folder / "photos", 1))
    succeeded(result)
    assert captions(result) == [LEARNED[0]]
    assert searches == [(SETTINGS, SETTINGS.beam_width)]


@pytest.mark.parametrize(
    ("arguments", "override"),
    [
        (["--beam-width", "3"], {"beam_width": 3}),
        (["--guidance", "0.5"], {"guidance": 0.5}),
        (["--word-logit-bias", "2"], {"word_logit_bias": 2.0}),
        (["--word-rerank-weight", "0"], {"word_rerank_weight": 0.0}),
        (["--neighbour-rerank-weight", "1"], {"neighbour_rerank_weight": 1.0}),
        (["--ensemble"], {"ensemble": True}),
    ],
)
def test_an_option_overrides_its_setting_and_no_other(
    folder: Path,
    searches: list[tuple[SearchSettings, int]],
    arguments: list[str],
    override: dict[str, Any],
) -> None:
    write_settings(folder, IN_FILE)
    succeeded(image("--artifacts", folder, *arguments, *write_photos(folder / "photos", 1)))
    expected = replace(IN_FILE, **override)
    assert searches == [(expected, expected.beam_width)]


def test_no_ensemble_overrides_an_ensemble_in_search_json(
    folder: Path, searches: list[tuple[SearchSettings, int]]
) -> None:
    succeeded(image("--artifacts", folder, "--no-ensemble", *write_photos(folder / "photos", 1)))
    assert searches == [(replace(SETTINGS, ensemble=False), SETTINGS.beam_width)]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"{}"])
def test_a_damaged_search_json_is_one_line(folder: Path, data: bytes) -> None:
    path = folder / "search.json"
    path.unlink()
    path.write_bytes(data)
    result = image("--artifacts", folder, *write_photos(folder / "photos", 1))
    (line,) = result.stderr.splitlines()
    assert (result.exit_code, result.stdout) == (1, "")
    assert line.startswith(f"Error: {path}")
    assert line.endswith(": run `dvc repro evaluate`")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("beam_width", 0),
        ("beam_width", 2.0),
        ("max_words", True),
        ("no_repeat_ngram_size", -1),
        ("guidance", float("nan")),
        ("word_logit_bias", "0.3"),
        ("word_rerank_weight", None),
        ("neighbour_rerank_weight", None),
        ("ensemble", 1),
    ],
)
def test_an_invalid_value_in_search_json_is_one_line(folder: Path, name: str, value: Any) -> None:
    path = folder / "search.json"
    change_json(path, {name: value})
    result = image("--artifacts", folder, *write_photos(folder / "photos", 1))
    failed(result, f"Error: {path}: {name} is {value!r}: run `dvc repro evaluate`")
    assert result.stdout == ""


# The program in a process of its own.


def test_the_program_uses_the_artifacts_in_the_current_folder(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source: Path = request.getfixturevalue(
        "converted" if openvino_graphs.is_installed() else "artifacts"
    )
    folder = copied_artifacts(source, tmp_path / "elsewhere", with_graphs=True)
    (tmp_path / "artifacts").symlink_to(folder, target_is_directory=True)
    write_photos(tmp_path, 2)
    result = subprocess.run(
        [*PROGRAM, "image", "01.png", "-", "gone.jpg", "00.png"],
        cwd=tmp_path,
        input=encoded(drawn(2), "PNG"),
        capture_output=True,
        check=False,
    )
    assert result.stderr.decode() == "gone.jpg: cannot be read: No such file or directory\n"
    expected = {"01.png": LEARNED[1], "-": LEARNED[2], "00.png": LEARNED[0]}
    assert result.stdout.decode() == "".join(f"{n}\t{c}\n" for n, c in expected.items())
    assert result.returncode == 1


@pytest.mark.skipif(
    any(Path(driver).exists() for driver in engines._DRIVERS),
    reason="Keras has an accelerator to run on",
)
def test_with_converted_graphs_the_program_imports_no_keras(
    artifacts: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    folder = copied_artifacts(artifacts, tmp_path / "artifacts")
    photos = [str(path) for path in write_photos(tmp_path / "photos", 3)]
    arguments = ["image", "--artifacts", str(folder), *photos]
    code = f"from pipeline.cli.main import main\nmain({arguments}, standalone_mode=False)"
    output, modules = slow_imports(code)
    assert "keras" in modules  # the first time
    again, modules = slow_imports(code)
    assert modules == ["PIL", "numpy", "openvino"]
    assert again == output
    assert [line.split("\t")[1] for line in output.splitlines()] == LEARNED[:3]
