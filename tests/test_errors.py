import errno
import os
import subprocess
import sys

import pytest

from pipeline.errors import InputError
from pipeline.stages.run import run_stage


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
