"""Stage `encoder`: fetch the CNN's weights once; record where they came from."""

from dataclasses import asdict
from pathlib import Path

from pipeline.errors import run_stage
from pipeline.features import weights
from pipeline.features.encoders import default_input_size, describe_encoder
from pipeline.files import write_json
from pipeline.params import load_params

ARTIFACTS = Path("artifacts")


def main() -> None:
    """Write artifacts/encoder.weights.h5 and artifacts/encoder.json."""
    params = load_params().encoder
    input_size = params.input_size or default_input_size(params.name)
    there = weights.already_there(ARTIFACTS, params.name, params.weights, input_size)
    if there:
        print(f"{params.name} is here already: {there}")
        return
    network, source = weights.fetch(params.name, params.weights, input_size)
    description = describe_encoder(params.name, input_size, source, weights.digest(network))
    weights.save(network, ARTIFACTS / "encoder.weights.h5")
    write_json(ARTIFACTS / "encoder.json", asdict(description))
    print(f"{params.name}, {input_size} x {input_size} pixels, weights: {source}")


if __name__ == "__main__":
    run_stage(main)
