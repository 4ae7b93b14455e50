import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.system.failures import describe
from tests.support.project import ROOT


@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.ENFILE, errno.EXDEV, errno.ESTALE, errno.EIO, errno.ENOENT]
)
def test_an_error_of_the_system_is_one_line_with_its_file_and_a_fix(number: int) -> None:
    line = describe(OSError(number, os.strerror(number), "a\nb.json"))
    assert line is not None
    assert line.startswith(f"a\\nb.json: {os.strerror(number)}: ")
    assert "\n" not in line
    assert describe(OSError(number, os.strerror(number))) == line.replace("a\\nb.json", "the disk")
    assert describe(OSError(number, os.strerror(number), b"a\nb.json")) == line


def test_too_little_memory_and_no_temporary_folder_have_their_own_fix() -> None:
    assert "memory" in str(describe(MemoryError()))
    missing = FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")
    assert "set TMPDIR" in str(describe(missing))


def test_an_error_that_no_system_reported_keeps_its_traceback() -> None:
    assert describe(OSError("unexpected")) is None


def start(*command: str, code: str, folder: Path) -> subprocess.Popen[str]:
    """Start Python in a folder where a package of the project's name has one more module."""
    for name in (".", "stages", "system"):
        (folder / "pipeline" / name).mkdir(parents=True, exist_ok=True)
        for module in (ROOT / "pipeline" / name).glob("*.py"):
            (folder / "pipeline" / name / module.name).write_bytes(module.read_bytes())
    (folder / "pipeline" / "stages" / "slow.py").write_text(code)
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509  (it touches no lock)
    )


IMPORTS = (
    "import time\nprint('importing', flush=True)\ntry:\n    time.sleep(60)\nexcept:\n    pass\n"
)
WORKS = """
import time
from pathlib import Path
from pipeline.stages.run import run_stage

def main():
    path = Path(".tmp-half")
    path.write_text("half")
    print("working", flush=True)
    try:
        time.sleep(60)
    finally:
        path.unlink()

if __name__ == "__main__":
    run_stage(main)
"""


@pytest.mark.parametrize("code", [IMPORTS, WORKS], ids=["imports", "works"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stage_that_is_asked_to_end_says_so_in_one_line(
    tmp_path: Path, code: str, number: signal.Signals
) -> None:
    with start("-m", "pipeline.stages.slow", code=code, folder=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        time.sleep(0.1)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert errors == "interrupted; run `dvc repro` to resume\n"
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("OSError(24, 'Too many open files', 'a.so')", "error: a.so: Too many open files: raise"),
        ("MemoryError()", "error: there is not enough memory: "),
    ],
)
def test_an_error_of_the_system_during_imports_is_one_line(
    tmp_path: Path, error: str, line: str
) -> None:
    with start("-m", "pipeline.stages.slow", code=f"raise {error}", folder=tmp_path) as process:
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors.startswith(line)
    assert errors.count("\n") == 1


def test_a_defect_during_imports_keeps_its_traceback(tmp_path: Path) -> None:
    with start("-m", "pipeline.stages.slow", code="1 / 0", folder=tmp_path) as process:
        _, errors = process.communicate(timeout=30)
    assert "Traceback" in errors
    assert "ZeroDivisionError" in errors
