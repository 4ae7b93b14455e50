import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# A fake Keras that writes to file descriptor 2 as C++ code does, bypassing sys.stderr.
NOISY = """
import os
from types import SimpleNamespace
os.write(2, b"a screen of advice\\n")
config = SimpleNamespace(
    backend=lambda: {backend!r}, set_floatx=str, set_image_data_format=str
)
"""


def run(
    code: str, folder: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run code in a new Python process that finds modules in `folder` first."""
    variables = {k: v for k, v in os.environ.items() if k not in {"KERAS_BACKEND", "PYTHONPATH"}}
    if folder is not None:
        variables["PYTHONPATH"] = str(folder)
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=variables | environment,
    )


def fake_keras(folder: Path, backend: str = "tensorflow", code: str = "") -> Path:
    (folder / "keras.py").write_text(NOISY.format(backend=backend) + code, "utf-8")
    return folder


def test_importing_the_backend_writes_nothing() -> None:
    code = (
        "import sys\n"
        "from pipeline.backend import JIT_COMPILE, keras\n"
        "print(keras.config.backend(), JIT_COMPILE, keras is sys.modules['keras'])"
    )
    result = run(code)
    assert (result.returncode, result.stdout, result.stderr) == (0, "tensorflow False True\n", "")


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_is_off_only_during_the_import(
    tmp_path: Path, *, enabled: bool
) -> None:
    # Python 3.12 itself freezes a few hundred objects.
    report = "print(gc.isenabled(), gc.get_freeze_count() > 1000)\n"
    folder = fake_keras(tmp_path, code=f"import gc\n{report}")
    code = f"import gc\nif not {enabled}: gc.disable()\nimport pipeline.backend\n{report}"
    assert run(code, folder).stdout == f"False False\n{enabled} True\n"


def test_only_the_output_of_the_import_is_dropped(tmp_path: Path) -> None:
    code = (
        "import os, sys, pipeline.backend\nos.write(2, b'later\\n')\nprint('ours', file=sys.stderr)"
    )
    result = run(code, fake_keras(tmp_path))
    assert (result.returncode, result.stderr) == (0, "later\nours\n")


def test_earlier_output_is_shown_once_and_first(tmp_path: Path) -> None:
    code = "import sys\nsys.stderr.write('before ')\nimport pipeline.backend"
    assert run(code, fake_keras(tmp_path)).stderr == "before "


def test_held_back_output_is_shown_if_the_import_fails(tmp_path: Path) -> None:
    folder = fake_keras(tmp_path, code="raise ImportError('no libcuda')")
    result = run("import pipeline.backend", folder)
    assert result.returncode == 1
    first, *_, last = result.stderr.splitlines()
    assert (first, last) == ("a screen of advice", "ImportError: no libcuda")


def test_held_back_output_is_shown_if_the_import_exits(tmp_path: Path) -> None:
    result = run("import pipeline.backend", fake_keras(tmp_path, code="raise SystemExit(3)"))
    assert (result.returncode, result.stderr) == (3, "a screen of advice\n")


@pytest.mark.parametrize("backend", [None, "", "jax"])
def test_a_keras_json_in_the_home_folder_changes_nothing(
    tmp_path: Path, backend: str | None
) -> None:
    pytest.importorskip(backend or "tensorflow")
    settings = {"backend": "torch", "floatx": "float16", "image_data_format": "channels_first"}
    (tmp_path / "keras.json").write_text(json.dumps(settings), "utf-8")
    code = (
        "from pipeline.backend import keras\n"
        "config = keras.config\n"
        "print(config.backend(), config.floatx(), config.image_data_format())"
    )
    if backend is not None:
        code = f"import os; os.environ['KERAS_BACKEND'] = {backend!r}\n{code}"
    result = run(code, KERAS_HOME=str(tmp_path))
    assert result.stdout == f"{backend or 'tensorflow'} float32 channels_last\n", result.stderr


def test_an_unknown_backend_is_named() -> None:
    result = run("import pipeline.backend", KERAS_BACKEND="bogus")
    assert result.returncode == 1
    assert "bogus" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("module", ["pipeline.backend", "pipeline.stages.train"])
def test_a_backend_that_keras_does_not_have_is_one_line(module: str) -> None:
    result = run(f"import {module}", KERAS_BACKEND="bogus")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "error: the environment's KERAS_BACKEND is 'bogus': "
        "set it to tensorflow, jax or torch, or unset it\n"
    )


def test_a_backend_that_is_not_installed_is_one_line() -> None:
    hide = "import importlib.util\nimportlib.util.find_spec = lambda _: None\n"
    result = run(f"{hide}import pipeline.backend", KERAS_BACKEND="jax")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        "error: the environment's KERAS_BACKEND is 'jax', which is not installed: "
        "`pip install jax`, or unset it\n"
    )


@pytest.mark.parametrize(
    ("backend", "compiled"), [("jax", True), ("tensorflow", False), ("torch", False)]
)
def test_only_jax_is_jit_compiled(tmp_path: Path, backend: str, *, compiled: bool) -> None:
    code = "from pipeline.backend import JIT_COMPILE; print(JIT_COMPILE)"
    assert run(code, fake_keras(tmp_path, backend)).stdout == f"{compiled}\n"


@pytest.mark.parametrize(
    ("environment", "level"), [({}, "3"), ({"TF_CPP_MIN_LOG_LEVEL": "0"}, "0")], ids=str
)
def test_the_users_log_level_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], level: str
) -> None:
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    code = "import os, pipeline.backend; print(os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    assert run(code, fake_keras(tmp_path), **environment).stdout == f"{level}\n"


def test_the_command_line_imports_neither_keras_nor_numpy() -> None:
    code = (
        "import sys, pipeline.cli\n"
        "print(sorted({'keras', 'numpy', 'tensorflow', 'pipeline.backend'} & set(sys.modules)))"
    )
    result = run(code)
    assert (result.stdout, result.stderr) == ("[]\n", "")


def test_with_too_little_address_space_one_line_names_the_limit() -> None:
    result = subprocess.run(
        [
            "/bin/sh",
            "-c",
            'ulimit -v 1000000; exec "$0" -c "import pipeline.backend"',
            sys.executable,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr == (
        "error: Keras needs 2.2 GB of address space, and 1.0 GB are allowed: raise the limit "
        "(`ulimit -v`)\n"
    )
