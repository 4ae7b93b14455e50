import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.captioner.captioner import Captioner
from pipeline.errors import InputError
from pipeline.features.encoders import engines
from pipeline.storage import openvino_graphs
from tests.conftest import change_json, copied_artifacts, encoded, slow_imports
from tests.support.artifacts import LEARNED, drawn, write_photos
from tests.support.cli import failed, image

PROGRAM = [sys.executable, "-c", "from pipeline.cli.main import main; main(prog_name='caption')"]


@pytest.fixture
def spoilt(artifacts: Path, tmp_path: Path) -> Path:
    return copied_artifacts(artifacts, tmp_path / "spoilt")


@pytest.mark.parametrize(("count", "batch_size"), [(1, 1), (5, 5), (32, 32), (100, 32)])
def test_the_batch_fits_the_number_of_photos(
    monkeypatch: pytest.MonkeyPatch, count: int, batch_size: int
) -> None:
    def load(*arguments: object, **how: object) -> Captioner:
        raise InputError(f"asked for {arguments}, {how}")

    monkeypatch.setattr(Captioner, "load", staticmethod(load))
    result = image("--artifacts", "folder", *["a.jpg"] * count)
    how = {"ensemble": True, "guidance": 0.2, "word_logit_bias": 0.3, "word_rerank_weight": 3.0}
    failed(result, f"Error: asked for {(Path('folder'), batch_size)}, {how}")


NO_RUN = "run `dvc repro`, or name the folder of a finished run with --artifacts"


@pytest.mark.parametrize(
    "name",
    ["vocabulary.json", "detector.h5", "model/model.json", "encoder.json", "encoder.weights.h5"],
)
def test_a_missing_artefact_is_one_line_with_its_mend(spoilt: Path, name: str) -> None:
    (spoilt / name).unlink()
    result = image("--artifacts", spoilt, *write_photos(spoilt / "photos", 1))
    failed(result, f"Error: {spoilt} has no {name}: {NO_RUN}")
    assert result.stdout == ""


def test_a_model_without_its_weights_names_its_stage(spoilt: Path) -> None:
    path = spoilt / "model/seed_2026.weights.h5"
    path.unlink()
    result = image("--artifacts", spoilt, *write_photos(spoilt / "photos", 1))
    failed(result, f"Error: {path} is not there: run `dvc repro train`")


def test_before_the_first_run_everything_is_said_to_be_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    result = image(*write_photos(Path(), 1))
    missing = "model/model.json, vocabulary.json, detector.h5, encoder.json, encoder.weights.h5"
    failed(result, f"Error: artifacts has no {missing}: {NO_RUN}")


@pytest.mark.parametrize(
    "different", [{"input_size": 64}, {"weights_sha256": "0" * 64}, {"encoder": "MobileNetV2"}]
)
def test_an_encoder_that_the_model_does_not_know_is_refused(
    spoilt: Path, different: dict[str, Any]
) -> None:
    change_json(spoilt / "encoder.json", different)
    result = image("--artifacts", spoilt, *write_photos(spoilt / "photos", 1))
    (name,) = different
    assert result.exit_code == 1
    assert re.fullmatch(
        rf"Error: {re.escape(str(spoilt / 'encoder.json'))} and the model do not belong together "
        rf"\(other {name}\): run `dvc repro`\n",
        result.stderr,
    )


def test_encoder_weights_that_encoder_json_does_not_know_are_refused(spoilt: Path) -> None:
    path = spoilt / "encoder.weights.h5"
    data = bytearray(path.read_bytes())
    # A number in the middle of the file is a weight.
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)
    result = image("--artifacts", spoilt, *write_photos(spoilt / "photos", 1))
    failed(
        result,
        f"Error: {path} has other weights than encoder.json records: run `dvc repro encoder`",
    )


@pytest.mark.parametrize("keep", [0, 100, 1_000_000], ids=["empty", "header", "part"])
def test_damaged_encoder_weights_are_refused(spoilt: Path, keep: int) -> None:
    path = spoilt / "encoder.weights.h5"
    data = path.read_bytes()[:keep]
    path.unlink()
    path.write_bytes(data)
    result = image("--artifacts", spoilt, *write_photos(spoilt / "photos", 1))
    (line,) = result.stderr.splitlines()
    assert result.exit_code == 1
    assert line.startswith(f"Error: {path} is not a readable HDF5 file (")
    assert line.endswith("): run `dvc repro encoder`")


# The program as it is run.


def test_the_program_captions_with_the_artifacts_beside_it(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    made: Path = request.getfixturevalue(
        "converted" if openvino_graphs.is_installed() else "artifacts"
    )
    folder = copied_artifacts(made, tmp_path / "elsewhere", with_graphs=True)
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
    any(Path(driver).exists() for driver in engines._DRIVERS), reason="Keras has a device to run on"
)
def test_with_its_graphs_the_program_needs_no_keras(artifacts: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    folder = copied_artifacts(artifacts, tmp_path / "artifacts")
    photos = [str(path) for path in write_photos(tmp_path / "photos", 3)]
    arguments = ["image", "--artifacts", str(folder), *photos]
    code = f"from pipeline.cli.main import main\nmain({arguments}, standalone_mode=False)"
    said, modules = slow_imports(code)
    assert "keras" in modules  # the first time
    again, modules = slow_imports(code)
    assert modules == ["PIL", "numpy", "openvino"]
    assert again == said
    assert [line.split("\t")[1] for line in said.splitlines()] == LEARNED[:3]
