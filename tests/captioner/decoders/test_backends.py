"""The encoders, the decoders and their loss run on the other Keras backends too."""

import importlib.util
import os
import subprocess
import sys

import pytest

from tests.support.project import ROOT

# Without the tests of OpenVINO, whose graphs can be converted on TensorFlow only.
MODULES = [
    "features/encoders/test_networks",
    "features/encoders/test_engines",
    "captioner/decoders/test_decoder",
    "captioner/decoders/test_lstm",
    "captioner/training/test_loss",
]
# InceptionV3 takes 40 of 120 seconds on JAX and covers nothing that other networks do not.
SELECTED = """
    (test_networks and not InceptionV3)
    or keras_engine or whole_sequences or formula_without_padding or test_lstm
"""


@pytest.mark.timeout(900)  # a hundred tests: 2 minutes, more on a busy machine
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_encoders_and_decoders_pass_on(backend: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    names = [f"tests/{name}.py" for name in MODULES]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-k", " ".join(SELECTED.split()), *names],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    assert " passed" in run.stdout
