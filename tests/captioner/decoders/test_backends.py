"""The encoders, the decoders and their loss run on the other Keras backends too."""

import importlib.util
import os
import re
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
SELECTED = (
    "test_networks or test_lstm or test_loss or keras_engine or whole_sequences or a_step_takes"
)


def passed_on(backend: str, selected: str, modules: list[str]) -> int:
    """Run tests in a new process, all of which have to pass; return how many there are."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    names = [f"tests/{name}.py" for name in modules]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "", "-k", selected, *names],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    return int(re.findall(r"(\d+) passed", run.stdout)[-1])


def test_on_jax_a_decoder_s_single_steps_equal_its_sequences_and_its_loss_the_formula() -> None:
    modules = ["captioner/decoders/test_decoder", "captioner/training/test_loss"]
    assert passed_on("jax", "merge-1d-defaults or 0.1 and not tied", modules) == 4


@pytest.mark.soak
@pytest.mark.timeout(900)  # a hundred tests: 2 minutes, more on a busy machine
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_encoders_and_decoders_pass_on(backend: str) -> None:
    assert passed_on(backend, SELECTED, MODULES) > 100
