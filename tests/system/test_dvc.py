import subprocess
import sys

import pytest

from pipeline.system.dvc import DvcError, run_dvc


def replace_dvc(monkeypatch: pytest.MonkeyPatch, code: int, output: str, errors: str) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command == [sys.executable, "-m", "dvc", "status"]
        return subprocess.CompletedProcess(command, code, output, errors)

    monkeypatch.setattr(subprocess, "run", run)


def test_the_output_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_dvc(monkeypatch, 0, "{}", "WARNING: something")
    assert run_dvc(["status"]) == "{}"


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        ("", "exit code 255"),
        ("ERROR: no\n  luck\n", "no luck"),
        ("WARNING: VS Code\nERROR: unexpected error - [1] no\n\nHaving any troubles? x", "[1] no"),
        ("a traceback", "a traceback"),
    ],
)
def test_the_reason_of_a_failure_is_one_line_without_advertising(
    monkeypatch: pytest.MonkeyPatch, errors: str, reason: str
) -> None:
    replace_dvc(monkeypatch, 255, "", errors)
    with pytest.raises(DvcError) as caught:
        run_dvc(["status"])
    assert str(caught.value) == reason
