"""What runs Keras in `features/`, the decoders and their loss, once more on its other backends."""

import importlib.util
import os
import subprocess
import sys

import pytest

from tests.project import ROOT

# Not those of OpenVINO, whose graphs are made on TensorFlow.
MODULES = ["test_encoders", "test_engines", "test_decoder", "test_loss", "test_lstm"]
CHOSEN = "test_encoders or keras_engine or whole_sequences or formula_without_padding or test_lstm"


@pytest.mark.timeout(900)  # a hundred tests: 145 s alone on two cores, twice that beside others
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_encoders_and_decoders_pass_on(backend: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    names = [f"tests/{name}.py" for name in MODULES]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", CHOSEN, *names],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    assert " passed" in run.stdout
