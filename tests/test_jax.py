"""What runs Keras in `features/`, once more on its JAX backend."""

import importlib.util
import os
import subprocess
import sys

import pytest

from tests.project import ROOT

# Not those of OpenVINO, whose graphs are made on TensorFlow.
MODULES = ["test_encoders", "test_engines"]
CHOSEN = "test_encoders or keras_engine"


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_the_encoders_tests_pass_on_jax() -> None:
    names = [f"tests/{name}.py" for name in MODULES]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", CHOSEN, *names],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    assert " passed" in run.stdout
