"""What runs Keras in `features/`, the decoders and their loss, once more on its other backends."""

import importlib.util
import os
import subprocess
import sys

import pytest

from tests.support.project import ROOT

# Not those of OpenVINO, whose graphs are made on TensorFlow.
MODULES = [
    "features/encoders/test_networks",
    "features/encoders/test_engines",
    "captioner/decoders/test_decoder",
    "captioner/decoders/test_lstm",
    "captioner/training/test_loss",
]
# InceptionV3 takes JAX 40 of 120 seconds, and shows nothing of a backend that others do not.
CHOSEN = """
    (test_networks and not InceptionV3)
    or keras_engine or whole_sequences or formula_without_padding or test_lstm
"""


@pytest.mark.timeout(900)  # a hundred tests: 2 minutes, more where others are busy
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_encoders_and_decoders_pass_on(backend: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    names = [f"tests/{name}.py" for name in MODULES]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", " ".join(CHOSEN.split()), *names],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    assert " passed" in run.stdout
