import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import InputError, one_line
from pipeline.stages.run import run_stage
from pipeline.system import dvc_cache


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b]0;title\x07\x1b[2J\x7f", r"\x1b]0;title\x07\x1b[2J\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("\u2028\u2029", r"\u2028\u2029"),
        ("\u202egnp.exe\u202c \u2066a\u2069", r"\u202egnp.exe\u202c \u2066a\u2069"),
        ("\u200e\u200f\u061c\ufeff", r"\u200e\u200f\u061c\ufeff"),
        ("\ud800 \udcff", r"\ud800 \udcff"),
    ],
)
def test_what_could_control_a_terminal_or_reorder_text_is_escaped(text: str, printed: str) -> None:
    assert one_line(text) == printed
    assert str(InputError(text)) == printed


@pytest.mark.parametrize(
    "text",
    [
        "caf\u00e9",
        "\u4e2d\u6587",
        "\u05e9\u05dc\u05d5\u05dd",
        "\u0645\u06cc\u200c\u062e",
        "\U0001f469\u200d\U0001f680",
    ],
)
def test_any_script_and_its_joiners_are_printed_as_they_are(text: str) -> None:
    assert one_line(text) == text


def fail_with(error: BaseException) -> None:
    def stage() -> None:
        raise error

    run_stage(stage)


def test_bad_input_ends_with_one_line_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        fail_with(InputError("a.txt is not there: put it there"))
    assert caught.value.code == 1
    assert capsys.readouterr() == ("", "error: a.txt is not there: put it there\n")


def test_an_interrupt_ends_with_one_line_and_the_shells_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        fail_with(KeyboardInterrupt())
    assert caught.value.code == 130
    assert capsys.readouterr().err == "interrupted; run `dvc repro` to resume\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_error_ends_with_one_line(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        fail_with(OSError(number, os.strerror(number), "artifacts/features.h5"))
    assert caught.value.code == 1
    output = capsys.readouterr().err
    assert output.startswith(f"error: artifacts/features.h5: {os.strerror(number)}: ")
    assert output.count("\n") == 1


def test_a_file_name_in_a_disk_error_is_one_safe_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fail_with(OSError(errno.ENOSPC, "full", "a\n\x1b[2J.h5"))
    assert capsys.readouterr().err.startswith(r"error: a\n\x1b[2J.h5: full: ")


@pytest.mark.parametrize("name", ["artifacts", "data"])
def test_under_dvc_a_folder_of_outputs_must_not_lead_out_of_the_project(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    Path(name).symlink_to(tmp_path / "disk")
    run_stage(lambda: print("without DVC"))
    monkeypatch.setenv("DVC_STAGE", "train")
    with pytest.raises(SystemExit) as caught:
        run_stage(lambda: print("ran"))
    assert caught.value.code == 1
    output = capsys.readouterr()
    assert output.out == "without DVC\n"
    assert output.err.startswith(f"error: {name} is a link to {tmp_path / 'disk'}, and DVC tracks")
    assert f"`rm {name}; mv {tmp_path / 'disk'} {name}`" in output.err
    assert "dvc config --local cache.type symlink" in output.err


def test_under_dvc_a_failed_stage_says_how_its_earlier_outputs_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "train")
    monkeypatch.setattr(dvc_cache, "find_object_folder", lambda: tmp_path / "objects")
    digest = "ab" * 16
    Path("dvc.lock").write_text(
        f"stages:\n  train:\n    outs:\n    - {{path: artifacts/model, md5: {digest}.dir}}\n"
    )
    hint = "DVC removed what this stage wrote before: `dvc checkout` brings it back\n"

    def said() -> str:
        with pytest.raises(SystemExit):
            fail_with(InputError("training diverged: lower it"))
        return capsys.readouterr().err.removeprefix("error: training diverged: lower it\n")

    assert said() == ""  # it is in no cache
    (tmp_path / "objects/ab").mkdir(parents=True)
    (tmp_path / "objects/ab" / f"{digest[2:]}.dir").touch()
    assert said() == hint
    Path("artifacts/model").mkdir(parents=True)
    assert said() == ""


def test_defects_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        fail_with(ZeroDivisionError())


def test_a_successful_stage_ends_without_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    run_stage(lambda: print("done"))
    assert capsys.readouterr() == ("done\n", "")


def test_a_process_prints_only_the_line() -> None:
    code = (
        "from pipeline.errors import InputError\n"
        "from pipeline.stages.run import run_stage\n"
        "def stage():\n    raise InputError('a.txt is damaged: repair it')\n"
        "run_stage(stage)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "error: a.txt is damaged: repair it\n"
