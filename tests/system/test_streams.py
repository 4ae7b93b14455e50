import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAME = "\u4e2d\u00e9.jpg"
STAGE = f"""
import sys
from pipeline.stages.run import run_stage
def stage():
    print({NAME!a})
    open("output", "w").write("done")
    print({NAME!a}, file=sys.stderr)
run_stage(stage)
"""
# Prints much more than a pipe holds, so that a reader who leaves is noticed.
LONG_STAGE = STAGE.replace("    print(", "    print(100_000 * ", 1)


def run(
    code: str,
    folder: Path,
    encoding: str = "utf-8",
    prepare: Callable[[], None] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run Python code in a process, whose descriptors `prepare` may change."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": f"{encoding}:strict"}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        check=False,
        preexec_fn=prepare,
    )


@pytest.mark.parametrize(
    ("encoding", "printed"),
    [
        ("utf-8", NAME.encode()),
        ("latin-1", b"\\u4e2d\xe9.jpg"),
        ("ascii", b"\\u4e2d\\xe9.jpg"),
    ],
)
def test_a_character_that_the_encoding_lacks_is_escaped(
    tmp_path: Path, encoding: str, printed: bytes
) -> None:
    result = run(STAGE, tmp_path, encoding)
    assert (result.returncode, result.stdout, result.stderr) == (
        0,
        printed + b"\n",
        printed + b"\n",
    )


@pytest.mark.parametrize("closed", [[2], [1], [0, 1, 2]])
def test_a_closed_stream_stops_no_stage_and_is_no_output_file(
    tmp_path: Path, closed: list[int]
) -> None:
    def close() -> None:
        for descriptor in closed:
            os.close(descriptor)

    result = run(STAGE, tmp_path, prepare=close)
    assert result.returncode == 0
    assert (tmp_path / "output").read_text() == "done"
    line = NAME.encode() + b"\n"
    assert result.stdout == (b"" if 1 in closed else line)
    assert result.stderr == (b"" if 2 in closed else line)


def test_a_file_opened_later_never_gets_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    code = """
import os
from pipeline.system.streams import prepare_streams
prepare_streams()
file = open("output", "w")
os.write(2, b"a message of a library")
assert file.fileno() > 2
"""
    assert run(code, tmp_path, prepare=lambda: os.close(2)).returncode == 0
    assert (tmp_path / "output").read_text() == ""


def test_a_reader_who_leaves_ends_a_stage_without_a_word(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", LONG_STAGE],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    assert process.wait() == 1
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_a_command_reports_any_name_on_any_stream(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "few.json").write_text(json.dumps({"a": "a dog"}), "utf-8")
    (tmp_path / "all.json").write_text(json.dumps({"a": "a dog", "\u4e2d": "a cat"}), "utf-8")
    code = "from pipeline.cli.main import main; main(['score', 'few.json', 'all.json'])"
    result = run(code, tmp_path, encoding)
    assert (result.returncode, result.stdout) == (1, b"")
    assert result.stderr.startswith(b"Error: few.json has no candidate for 1 photo (")
    assert len(result.stderr.splitlines()) == 1
    unheard = run(code, tmp_path, encoding, prepare=lambda: os.close(2))
    assert (unheard.returncode, unheard.stdout, unheard.stderr) == (1, b"", b"")
